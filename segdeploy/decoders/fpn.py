"""Decoder `fpn`: feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144), its levels merged
into one map as in Panoptic FPN (Kirillov et al. 2019, https://arxiv.org/abs/1901.02446)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from segdeploy.decoders.blocks import conv_bn_relu, levels_from, resize_like
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class FPNConfig(Section):
    """A light decoder for encoders with maps at strides 4 to 32. Choose it when speed counts."""

    num_channels: Annotated[int, Field(ge=8, le=1024)] = 256
    """Width of the pyramid."""
    merge_channels: Annotated[int, Field(ge=8, le=1024)] = 128
    """Width of the levels once they are merged."""
    num_levels: Annotated[int, Field(ge=2, le=8)] | None = None
    """Levels of the pyramid, the finest (stride 4 or above) first; null, or more than there are: all."""
    upsample_mode: Literal["nearest", "bilinear"] = "nearest"
    """How a coarser level is brought to the next finer one on the way down."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the merged channels that training drops."""


class FPN(nn.Module):
    """Maps at strides >= 4 -> (N, merge_channels, H / s, W / s), s the finest of them."""

    dynamic_size = True

    def __init__(self, config: FPNConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        self.levels = levels_from(features, 4, 2, "fpn")[: config.num_levels]
        if len(self.levels) < (config.num_levels or 0):
            log.info("decoder fpn: the encoder has %d levels for the %s asked for", len(self.levels), config.num_levels)
        self.upsample_mode = config.upsample_mode
        width, merged = config.num_channels, config.merge_channels
        self.lateral = nn.ModuleList(nn.Conv2d(features[i].channels, width, 1) for i in self.levels)
        self.smooth = nn.ModuleList(conv_bn_relu(width, merged) for _ in self.levels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.out = FeatureMap(channels=merged, stride=features[self.levels[0]].stride)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Lateral 1x1 convolutions, top-down sums, a 3x3 convolution per level, and the sum of all."""
        lateral = [conv(maps[i]) for conv, i in zip(self.lateral, self.levels, strict=True)]
        for i in range(len(lateral) - 1, 0, -1):
            lateral[i - 1] = lateral[i - 1] + resize_like(lateral[i], lateral[i - 1], self.upsample_mode)
        smooth = [conv(x) for conv, x in zip(self.smooth, lateral, strict=True)]
        merged = smooth[-1]
        for finer in reversed(smooth[:-1]):
            # Coarse to fine, one step at a time: the large maps are touched once.
            merged = finer + resize_like(merged, finer)
        dropped: Tensor = self.dropout(merged)
        return dropped


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `fpn`."""
    register(DecoderPlugin(name="fpn", summary="feature pyramid, light and fast", config=FPNConfig, build=FPN))
