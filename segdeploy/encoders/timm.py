"""Encoder `timm`: any timm model that can give a pyramid (`features_only`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import timm
import torch.nn.functional as F
from pydantic import Field, field_validator
from timm.layers.format import Format
from torch import Tensor, nn

from segdeploy.encoders import timm_sizes, windows
from segdeploy.encoders.pretrained import PretrainedSection, TimmModel, load_pretrained, unknown_name
from segdeploy.errors import ConfigError
from segdeploy.plugin import EncoderPlugin, FeatureMap, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


class TimmConfig(PretrainedSection):
    """Any timm model with `features_only`."""

    model_name: str = Field(default="caformer_s18", min_length=1)
    """timm's name, such as mobilenetv3_large_100 or resnet50.a1_in1k; see `timm.list_models()`."""
    out_indices: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Which of the model's maps are levels, finest first, as timm counts them; null: those that timm gives unasked."""
    output_stride: Literal[8, 16, 32] = 32
    """Stride of the coarsest level; below 32 the late stages keep their size and dilate their kernels instead."""

    @field_validator("model_name")
    @classmethod
    def _known(cls, name: str) -> str:
        if said := unknown_name(name):
            raise ValueError(said)
        return name


class TimmEncoder(TimmModel):
    """A timm model as a pyramid: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) per level.

    With an `output_stride` below 32 several stages share the coarsest stride. The deepest of them is the level
    that decoders see, and the others only lead to it: resnet50 at 16 has the levels 2, 4, 8 and 16, the last with
    2048 channels.
    """

    def __init__(self, model_name: str, output_stride: int = 32, out_indices: tuple[int, ...] | None = None) -> None:
        self.output_stride, self.out_indices = output_stride, out_indices  # before super().__init__ calls create
        super().__init__(model_name)
        info = self.body.feature_info
        channels, strides = info.channels(), [int(s) for s in info.reduction()]
        self.levels = list(range(len(strides)))
        if output_stride < 32:
            self.levels = [i for i in self.levels if strides[i] not in strides[i + 1 :]]
        self.features = tuple(FeatureMap(channels=int(channels[i]), stride=strides[i]) for i in self.levels)
        strides = [f.stride for f in self.features]
        if len(set(strides)) != len(strides) or strides != sorted(strides):
            raise ConfigError(
                f"encoder.model_name: {model_name} gives maps of strides {strides}; "
                "a pyramid with rising strides is needed"
            )
        self.padded_to = windows.take_any_size(self.body)
        self.size_multiple = max(windows.whole_multiple(self.body), timm_sizes.multiple_of(model_name))
        # A window's grid is fixed when the graph is made.
        self.dynamic_size = self.size_multiple == 1 and timm_sizes.has_free_sizes(model_name)

    def create(self, **options: Any) -> nn.Module:
        """timm's model with `features_only`.

        Raises:
            ConfigError: an output stride below 32 that the model does not know.
        """
        options = {"features_only": True, **windows.options_for(self.model_name), **options}
        if self.out_indices is not None:
            options["out_indices"] = self.out_indices
        body: nn.Module
        if self.output_stride == 32:  # many models do not even have the option
            body = timm.create_model(self.model_name, **options)
            return body
        try:
            body = timm.create_model(self.model_name, output_stride=self.output_stride, **options)
        except (TypeError, AssertionError) as e:
            raise ConfigError(
                f"encoder.output_stride: found {self.output_stride}, but {self.model_name} cannot dilate its stages; "
                "leave it at 32, or choose a model that can, such as resnet50 or mobilenetv3_large_100"
            ) from e
        return body

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) float, normalised -> feature maps, finest first.

        Raises:
            ConfigError: a size that the model's windows do not divide.
        """
        height, width = image.shape[-2:]
        windows.check_multiple(self.model_name, height, width, self.size_multiple)
        image = F.pad(image, (0, -width % self.padded_to, 0, -height % self.padded_to))
        maps = self.body(image)
        if getattr(self.body, "output_fmt", Format.NCHW) == Format.NHWC:  # Swin and its kin
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return tuple(maps[i] for i in self.levels)


def build(config: TimmConfig) -> TimmEncoder:
    """The encoder with random weights."""
    return TimmEncoder(config.model_name, config.output_stride, config.out_indices)


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `timm`."""
    register(
        EncoderPlugin(
            name="timm",
            summary="any timm model with features_only, by model_name",
            config=TimmConfig,
            build=build,
            load_pretrained=load_pretrained,
        )
    )
