"""The simple feature pyramid of ViTDet (Li et al. 2022, https://arxiv.org/abs/2203.16527, section 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from segdeploy.plugin import FeatureMap

if TYPE_CHECKING:
    from collections.abc import Sequence

STRIDES = (4, 8, 16, 32)


class SimpleFeaturePyramid(nn.Module):
    """One map of a plain transformer -> four, at strides 4, 8, 16 and 32, each made from that one map alone.

    Finer maps come from transposed convolutions of stride 2, each halving the channels, with LayerNorm and GELU
    between two; coarser ones from max pooling. A 1x1 and a 3x3 convolution, with LayerNorm, set the width.
    """

    def __init__(self, in_channels: int, stride: int, channels: int) -> None:
        super().__init__()
        self.features = tuple(FeatureMap(channels=channels, stride=s) for s in STRIDES)
        self.levels = nn.ModuleList(_level(in_channels, stride, s, channels) for s in STRIDES)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """(N, C, ceil(H / p), ceil(W / p)) of an image of `size` (H, W) -> maps of ceil(H / s), ceil(W / s)."""
        maps = []
        for level, feature in zip(self.levels, self.features, strict=True):
            height, width = (math.ceil(side / feature.stride) for side in size)
            # Patches may reach beyond the image; what lies there is cut off.
            maps.append(level(tokens)[:, :, :height, :width])
        return tuple(maps)


def _level(in_channels: int, before: int, after: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = in_channels
    while before > after:
        if layers:
            layers += [LayerNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
        width //= 2
        before //= 2
    if after > before:
        layers.append(nn.MaxPool2d(after // before, ceil_mode=True))
    return nn.Sequential(
        *layers,
        nn.Conv2d(width, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )
