"""Encoder `timm`: any timm model that can give a pyramid (`features_only`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import timm
import torch.nn.functional as F
from pydantic import Field
from timm.layers.format import Format
from torch import Tensor, nn

from segdeploy.encoders import windows
from segdeploy.encoders.pretrained import PretrainedSection, TimmModel, load_pretrained
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


class TimmEncoder(TimmModel):
    """A timm model as a pyramid: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) per level."""

    def __init__(self, model_name: str, out_indices: tuple[int, ...] | None = None) -> None:
        self.out_indices = out_indices
        super().__init__(model_name)
        info = self.body.feature_info
        levels = zip(info.channels(), info.reduction(), strict=True)
        self.features = tuple(FeatureMap(channels=int(c), stride=int(s)) for c, s in levels)
        strides = [f.stride for f in self.features]
        if len(set(strides)) != len(strides) or strides != sorted(strides):
            raise ConfigError(
                f"encoder.model_name: {model_name} gives maps of strides {strides}; "
                "a pyramid with rising strides is needed"
            )
        self.padded_to = windows.take_any_size(self.body)
        self.size_multiple = windows.whole_multiple(self.body)

    def create(self, **options: Any) -> nn.Module:
        """timm's model with `features_only`."""
        more = windows.options_for(self.model_name)
        if self.out_indices is not None:
            more["out_indices"] = self.out_indices
        body: nn.Module = timm.create_model(self.model_name, features_only=True, **more, **options)
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
            return tuple(m.permute(0, 3, 1, 2) for m in maps)
        return tuple(maps)


def build(config: TimmConfig) -> TimmEncoder:
    """The encoder with random weights."""
    return TimmEncoder(config.model_name, config.out_indices)


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
