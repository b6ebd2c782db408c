"""Decoder `panoptic_fpn`: the semantic branch of Panoptic FPN (Kirillov et al. 2019,
https://arxiv.org/abs/1901.02446, section 3.1) on a feature pyramid (Lin et al. 2017, https://arxiv.org/abs/1612.03144).
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from segdeploy.decoders.blocks import levels_from, resize_like
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

GROUPS = 32
"""Of the group normalisation, as in the paper."""


class PanopticFPNConfig(Section):
    """As published: every level has convolutions of its own. Heavier than `fpn`; its norms suit small batches."""

    num_channels: Annotated[int, Field(ge=8, le=1024)] = 256
    """Width of the pyramid."""
    merge_channels: Annotated[int, Field(ge=GROUPS, le=1024, multiple_of=GROUPS)] = 128
    """Width of each level's branch; a multiple of 32."""
    merge_policy: Literal["add", "cat"] = "add"
    """How the branches become one map: their sum, or side by side."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the merged channels that training drops."""
    upsample_mode: Literal["nearest", "bilinear"] = "nearest"
    """How a coarser level is brought to the next finer one on the way down; the branches are bilinear always."""
    align_corners: bool = False
    """Of the branches' bilinear steps."""
    min_stride: Literal[2, 4] = 4
    """Levels of this stride and above are used; the finest of them sets the result's stride."""


class PanopticFPN(nn.Module):
    """Maps at strides >= min_stride -> (N, C, H / s, W / s), s the finest of them.

    C is merge_channels, times the number of levels where the branches stand side by side.
    """

    dynamic_size = True

    def __init__(self, config: PanopticFPNConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        self.levels = levels_from(features, config.min_stride, 2, "panoptic_fpn")
        self.config = config
        width, merged = config.num_channels, config.merge_channels
        self.lateral = nn.ModuleList(nn.Conv2d(features[i].channels, width, 1) for i in self.levels)
        # A level has one convolution for each step up to the finest, which has one, too.
        self.branches = nn.ModuleList(
            nn.Sequential(*(_conv_gn_relu(merged if step else width, merged) for step in range(max(place, 1))))
            for place in range(len(self.levels))
        )
        self.dropout = nn.Dropout2d(config.dropout)
        channels = merged if config.merge_policy == "add" else merged * len(self.levels)
        self.out = FeatureMap(channels=channels, stride=features[self.levels[0]].stride)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Lateral 1x1 convolutions, top-down sums, each level's branch to the finest size, and all of them merged."""
        pyramid = [conv(maps[i]) for conv, i in zip(self.lateral, self.levels, strict=True)]
        for i in range(len(pyramid) - 1, 0, -1):
            pyramid[i - 1] = pyramid[i - 1] + resize_like(pyramid[i], pyramid[i - 1], self.config.upsample_mode)
        # Coarse to fine.
        branches = [self._branch(place, pyramid) for place in reversed(range(len(pyramid)))]
        merged = torch.cat(branches, 1) if self.config.merge_policy == "cat" else reduce(torch.add, branches)
        dropped: Tensor = self.dropout(merged)
        return dropped

    def _branch(self, place: int, pyramid: list[Tensor]) -> Tensor:
        x = pyramid[place]
        convs: nn.Sequential = self.branches[place]  # type: ignore[assignment]
        for step, conv in enumerate(convs, 1):
            x = conv(x)
            if place:
                x = resize_like(x, pyramid[place - step], align_corners=self.config.align_corners)
        return x


def _conv_gn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, out_channels),
        nn.ReLU(inplace=True),
    )


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `panoptic_fpn`."""
    register(
        DecoderPlugin(
            name="panoptic_fpn",
            summary="Panoptic FPN's semantic branch, as published",
            config=PanopticFPNConfig,
            build=PanopticFPN,
        )
    )
