"""Decoder `unet`: skip connections at every level (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segdeploy.decoders.blocks import conv_bn_relu, levels_from, resize_like
from segdeploy.errors import ConfigError
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


class UNetConfig(Section):
    """Uses every level of the encoder, the finest too. Choose it when fine outlines count."""

    channels: Annotated[tuple[Annotated[int, Field(ge=8, le=2048)], ...], Field(min_length=1, max_length=8)] = (
        256,
        128,
        64,
        32,
        16,
    )
    """Width of each step, coarsest first; as many are used as there are levels to join."""
    num_stages: Annotated[int, Field(ge=1, le=8)] | None = None
    """Levels that are joined, the finest first; null: all that the encoder has."""
    conv_norm: Literal["batch"] | None = "batch"
    """Normalisation after each convolution."""
    upsample_mode: Literal["nearest", "bilinear"] = "nearest"
    """How a coarser map is brought to the next finer one."""
    full_size: bool = False
    """true: after the finest level go on without skips, each step twice the size, up to stride 1."""


class UNet(nn.Module):
    """All maps -> (N, C, H / s, W / s), s the stride of the finest, or 1 with `full_size`.

    At stride 1 the size is the finest level's times its stride, so it can exceed the image's where that is odd.
    """

    dynamic_size = True

    def __init__(self, config: UNetConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        levels_from(features, 1, 2, "unet")
        stages = len(features) - 1 if config.num_stages is None else config.num_stages
        if stages > len(features) - 1:
            raise ConfigError(f"decoder unet: num_stages is {stages}, but the encoder has {len(features) - 1} to join")
        self.used = stages + 1
        finest = features[0].stride
        further = int(math.log2(finest)) if config.full_size else 0
        if config.full_size and 1 << further != finest:
            raise ConfigError(
                f"decoder unet: full_size needs a finest stride of 1, 2, 4, ..., the encoder has {finest}"
            )
        # Coarse to fine, without the coarsest; then the steps that have no level to join.
        skips = [*(f.channels for f in features[:stages][::-1]), *[0] * further]
        widths = [config.channels[min(i, len(config.channels) - 1)] for i in range(len(skips))]
        incoming = [features[stages].channels, *widths[:-1]]
        norm = config.conv_norm == "batch"
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_bn_relu(below + skip, width, norm=norm), conv_bn_relu(width, width, norm=norm))
            for below, skip, width in zip(incoming, skips, widths, strict=True)
        )
        self.upsample_mode = config.upsample_mode
        self.out = FeatureMap(channels=widths[-1], stride=1 if config.full_size else finest)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Upsample, join with the level's skip if there is one, two 3x3 convolutions; from coarse to fine."""
        *skips, x = maps[: self.used]
        for block, skip in zip_longest(self.blocks, skips[::-1]):
            if skip is None:
                x = block(F.interpolate(x, scale_factor=2.0, mode=self.upsample_mode))
            else:
                x = block(torch.cat([resize_like(x, skip, self.upsample_mode), skip], dim=1))
        return x


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `unet`."""
    register(DecoderPlugin(name="unet", summary="U-Net, skips at every level", config=UNetConfig, build=UNet))
