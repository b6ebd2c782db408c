"""Decoder `segformer`: the all-MLP head (Xie et al. 2021, https://arxiv.org/abs/2105.15203, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from segdeploy.decoders.blocks import conv_bn_relu, levels_from, resize_like
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


class SegFormerConfig(Section):
    """Mixes all scales per pixel. Choose it for hierarchical transformers and ConvNeXt."""

    hidden_size: Annotated[int, Field(ge=8, le=2048)] = 256
    """Width to which every level is brought."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the fused channels that training drops."""
    min_stride: Literal[1, 2, 4] = 4
    """Levels of this stride and above are mixed, below 4 shrunk: the result is at the first stride from 4 on."""


class SegFormer(nn.Module):
    """Maps at strides >= min_stride -> (N, hidden_size, H / s, W / s), s the finest stride of 4 and above."""

    dynamic_size = True

    def __init__(self, config: SegFormerConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        self.levels = levels_from(features, config.min_stride, 2, "segformer")
        out = levels_from(features, 4, 1, "segformer")[0]
        hidden = config.hidden_size
        # A 1x1 convolution is the paper's per-pixel linear layer, without the reshapes.
        self.project = nn.ModuleList(nn.Conv2d(features[i].channels, hidden, 1) for i in self.levels)
        self.fuse = conv_bn_relu(hidden * len(self.levels), hidden, 1)
        self.dropout = nn.Dropout2d(config.dropout)
        self.target = self.levels.index(out)
        self.out = FeatureMap(channels=hidden, stride=features[out].stride)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Project every level, bring all to one size, fuse."""
        projected = [conv(maps[i]) for conv, i in zip(self.project, self.levels, strict=True)]
        target = projected[self.target]
        same_size = [x if x is target else resize_like(x, target) for x in projected]
        fused: Tensor = self.dropout(self.fuse(torch.cat(same_size[::-1], dim=1)))
        return fused


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `segformer`."""
    register(
        DecoderPlugin(name="segformer", summary="SegFormer's all-MLP head", config=SegFormerConfig, build=SegFormer)
    )
