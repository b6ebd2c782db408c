"""The config.json that segmentation_models.pytorch writes: the keys of each architecture that segdeploy can rebuild.

Values that are not among those listed are refused when it is read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator

from segdeploy.errors import ModelError
from segdeploy.frozen import Frozen
from segdeploy.importing.parts import first_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OTHERWISE = "other networks come in by --factory package.module:function"

Strides = tuple[int, ...]
Names = tuple[tuple[str, str], ...]
"""Patterns of their names and what stands there in ours."""


class RefusedError(ValueError):
    """What segdeploy cannot rebuild; no error of the user's until it has the file's name."""


class SmpModel(Frozen):
    """What all architectures share."""

    kernel_size: ClassVar[Literal[1, 3]] = 1
    align_corners: ClassVar[bool] = True
    distribution: ClassVar[str | None] = None
    """The package that has the decoder, where it is not segdeploy."""

    encoder_name: Annotated[str, Field(pattern=r"^[\w./:-]+$", max_length=200)] = "resnet34"
    encoder_depth: Literal[3, 4, 5] = 5
    encoder_weights: Any = None
    in_channels: Literal[3] = 3
    classes: Annotated[int, Field(ge=1, le=255)] = 1
    activation: Literal["identity", "sigmoid", "softmax", "softmax2d", "logsoftmax"] | None = None
    aux_params: dict[str, Any] | None = None

    @property
    def output_stride(self) -> int:
        """Of the encoder: below 32 its late stages are dilated."""
        return 32

    def decoder(self, strides: Strides) -> tuple[str, dict[str, Any]]:
        """The name and the keys of our decoder for an encoder with these strides; RefusedError where there is none."""
        raise NotImplementedError

    def names(self, strides: Strides) -> Names:
        """How the decoder's weights are called."""
        raise NotImplementedError


class Unet(SmpModel):
    """U-Net down to stride 1."""

    kernel_size = 3
    align_corners = False  # there is nothing left to upsample

    decoder_use_norm: Any = "batchnorm"
    decoder_use_batchnorm: Any = None
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    decoder_attention_type: None = None
    decoder_interpolation: Literal["nearest", "bilinear"] = "nearest"

    @field_validator("decoder_use_norm", "decoder_use_batchnorm")
    @classmethod
    def _known_norm(cls, value: Any) -> str | None:
        """True, False, a word, or a dict with nothing but the word."""
        word = value["type"] if isinstance(value, dict) and set(value) == {"type"} else value
        words = {True: "batchnorm", False: "identity", None: None, "batchnorm": "batchnorm", "identity": "identity"}
        if not isinstance(word, bool | str | None) or word not in words:
            raise ValueError("expected batchnorm or identity")
        return words[word]

    def decoder(self, strides: Strides) -> tuple[str, dict[str, Any]]:
        """`unet` with steps down to stride 1."""
        if len(self.decoder_channels) != self.encoder_depth:
            raise RefusedError(
                f"decoder_channels: expected {self.encoder_depth} numbers, found {self.decoder_channels}"
            )
        norm = self.decoder_use_batchnorm or self.decoder_use_norm
        return "unet", {
            "channels": list(self.decoder_channels),
            "conv_norm": "batch" if norm == "batchnorm" else None,
            "upsample_mode": self.decoder_interpolation,
            "full_size": True,
        }

    def names(self, strides: Strides) -> Names:
        """Two convolutions in each block."""
        return ((r"^decoder\.blocks\.(\d+)\.conv1\.", r"decoder.blocks.\1.0."),
                (r"^decoder\.blocks\.(\d+)\.conv2\.", r"decoder.blocks.\1.1."))  # fmt: skip


class _Upsampled(SmpModel):
    upsampling: int = 4

    def restores(self, stride: int) -> None:
        """RefusedError where the logits are not brought to the image's size."""
        if self.upsampling != stride:
            raise RefusedError(
                f"upsampling: expected {stride}, which brings the logits to the image's size, found {self.upsampling}"
            )


class FPN(_Upsampled):
    """Panoptic FPN's semantic branch on the last four levels."""

    decoder_pyramid_channels: int = 256
    decoder_segmentation_channels: int = 128
    decoder_merge_policy: Literal["add", "cat"] = "add"
    decoder_dropout: float = 0.2
    decoder_interpolation: Literal["nearest", "bilinear"] = "nearest"

    def decoder(self, strides: Strides) -> tuple[str, dict[str, Any]]:
        """`panoptic_fpn`."""
        if len(strides) < 4:
            raise RefusedError(f"encoder_depth: expected four levels, found strides {_listed(strides)}")
        self.restores(strides[-4])
        return "panoptic_fpn", {
            "num_channels": self.decoder_pyramid_channels,
            "merge_channels": self.decoder_segmentation_channels,
            "merge_policy": self.decoder_merge_policy,
            "dropout": self.decoder_dropout,
            "upsample_mode": self.decoder_interpolation,
            "align_corners": True,
            "min_stride": strides[-4],
        }

    def names(self, strides: Strides) -> Names:
        """Coarse to fine in theirs, fine to coarse in ours."""
        branches = [(rf"^decoder\.seg_blocks\.{3 - i}\.block\.(\d+)\.block\.", rf"decoder.branches.{i}.\1.")
                    for i in range(4)]  # fmt: skip
        lateral = [(rf"^decoder\.p{i + 2}\.(skip_conv\.)?", f"decoder.lateral.{i}.") for i in range(4)]
        return (*branches, *lateral)


class Segformer(_Upsampled):
    """SegFormer's head on all levels, those of stride 2 too."""

    decoder_segmentation_channels: int = 256

    def decoder(self, strides: Strides) -> tuple[str, dict[str, Any]]:
        """`segformer`."""
        self.restores(4)
        return "segformer", {
            "hidden_size": self.decoder_segmentation_channels,
            "dropout": 0.0,
            "min_stride": min(4, strides[0]),
        }

    def names(self, strides: Strides) -> Names:
        """Coarse to fine in theirs, fine to coarse in ours."""
        last = len(strides) - 1
        project = [(rf"^decoder\.mlp_stage\.{last - i}\.linear\.", f"decoder.project.{i}.") for i in range(last + 1)]
        return (*project, (r"^decoder\.fuse_stage\.", "decoder.fuse."))


class DeepLabV3Plus(_Upsampled):
    """DeepLabV3+."""

    distribution = "segdeploy-deeplabv3plus"

    encoder_output_stride: Literal[8, 16] = 16
    decoder_channels: int = 256
    decoder_atrous_rates: Annotated[tuple[int, ...], Field(min_length=3, max_length=3)] = (12, 24, 36)
    decoder_aspp_separable: bool = True
    decoder_aspp_dropout: float = 0.5

    @property
    def output_stride(self) -> int:
        """As the configuration has it."""
        return self.encoder_output_stride

    def decoder(self, strides: Strides) -> tuple[str, dict[str, Any]]:
        """`deeplabv3plus`."""
        self.restores(4)
        return "deeplabv3plus", {
            "channels": self.decoder_channels,
            "atrous_rates": list(self.decoder_atrous_rates),
            "separable": self.decoder_aspp_separable,
            "skip_channels": 48,
            "dropout": self.decoder_aspp_dropout,
            "align_corners": True,
        }

    def names(self, strides: Strides) -> Names:
        """The same as theirs."""
        return ()


ARCHITECTURES: dict[str, type[SmpModel]] = {
    "Unet": Unet,
    "FPN": FPN,
    "Segformer": Segformer,
    "DeepLabV3Plus": DeepLabV3Plus,
}


def parse(content: dict[str, Any], file: Path) -> SmpModel:
    """The content of config.json; ModelError, one line with the key, for what segdeploy cannot rebuild."""
    kind = content["_model_class"]
    if kind not in ARCHITECTURES:
        raise ModelError(f"{file}: _model_class: expected {', '.join(ARCHITECTURES)}, found {kind[:60]!r}; {OTHERWISE}")
    architecture = ARCHITECTURES[kind]
    known = architecture.model_fields
    # smp itself drops options of the encoder that are null.
    given = {k: v for k, v in content.items() if not k.startswith("_") and (v is not None or k in known)}
    try:
        config = architecture.model_validate_json(json.dumps(given))
    except ValidationError as e:
        raise ModelError(f"{file}: {first_of(e)}; {OTHERWISE}") from e
    if config.activation == "sigmoid" and config.classes > 1:
        raise ModelError(
            f"{file}: activation: sigmoid with {config.classes} classes gives several labels to a pixel, "
            "segdeploy's masks hold one; expected softmax or none"
        )
    return config


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
