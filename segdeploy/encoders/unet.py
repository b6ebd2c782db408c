"""Encoder `unet`: the contracting path of U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597).

Plain 3x3 convolutions, no pretrained weights: it learns fast from few images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from segdeploy.plugin import EncoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


class UNetEncoderConfig(Section):
    """Small and trained from scratch. Choose it for small data sets and shapes that are told by texture."""

    base_channels: Annotated[int, Field(ge=4, le=256)] = 64
    """Width of the finest level; each coarser one is twice as wide."""
    num_stages: Annotated[int, Field(ge=1, le=6)] = 4
    """How often the resolution is halved after the finest level."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the finest level; 2 is about four times as fast."""
    conv_norm: Literal["batch"] | None = "batch"
    """Normalisation after each convolution."""


class UNetEncoder(nn.Module):
    """(N, 3, H, W) -> num_stages + 1 maps, the finest at stem_stride."""

    dynamic_size = True

    def __init__(self, config: UNetEncoderConfig) -> None:
        super().__init__()
        widths = [config.base_channels << i for i in range(config.num_stages + 1)]
        norm = config.conv_norm == "batch"
        incoming = [3, *widths[:-1]]
        strides = [config.stem_stride, *[2] * config.num_stages]
        self.stages = nn.ModuleList(
            nn.Sequential(_conv(i, o, s, norm), _conv(o, o, 1, norm))
            for i, o, s in zip(incoming, widths, strides, strict=True)
        )
        self.features = tuple(FeatureMap(channels=w, stride=config.stem_stride << i) for i, w in enumerate(widths))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Two convolutions per level; the first of each coarser one halves the resolution."""
        maps = []
        x = image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def _conv(in_channels: int, out_channels: int, stride: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `unet`."""
    register(
        EncoderPlugin(
            name="unet", summary="U-Net's contracting path, from scratch", config=UNetEncoderConfig, build=UNetEncoder
        )
    )
