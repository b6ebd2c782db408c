"""Decoder `ddrnet`: context from the coarsest level (DAPPM), added to the level of stride 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from segdeploy.errors import ConfigError
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl
from segdeploy_realtime.ddrnet.blocks import PreActivationHead, initialise, resize_like

if TYPE_CHECKING:
    from collections.abc import Callable

STRIDE = 8
POOLS = ((5, 2), (9, 4), (17, 8))  # kernel, stride


class DDRNetDecoderConfig(Section):
    """Made for the encoder `ddrnet`; any other with a level of stride 8 and a coarser one will do."""

    context_channels: Annotated[int, Field(ge=8, le=1024)] = 128
    """Width of the branches that gather context."""
    head_channels: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Width of the result; null: half of the level of stride 8, as in DDRNet-23-slim and 23 (39: set 256)."""


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling (section III-C of the paper): (N, in, H, W) -> (N, out, H, W).

    Averages over ever larger windows, the last over the whole map, each refined together with the one before.
    """

    def __init__(self, in_channels: int, branch_channels: int, out_channels: int) -> None:
        super().__init__()
        # Padding counts in the averages, as in the authors' network.
        self.pools = nn.ModuleList(nn.AvgPool2d(kernel, stride, kernel // 2) for kernel, stride in POOLS)
        scales, steps = len(POOLS) + 2, len(POOLS) + 1
        self.scales = nn.ModuleList(_pre_activated(in_channels, branch_channels, 1) for _ in range(scales))
        self.process = nn.ModuleList(_pre_activated(branch_channels, branch_channels, 3) for _ in range(steps))
        self.compression = _pre_activated(branch_channels * scales, out_channels, 1)
        self.shortcut = _pre_activated(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, refine from the smallest window to the largest, join.

        Raises:
            ConfigError: training with one image; the normalisation of its one average has nothing to compare.
        """
        if self.training and x.shape[0] == 1:
            raise ConfigError(
                "decoder ddrnet: global pooling cannot train on one image at a time; "
                "set trainer.batch_size to 2 or more"
            )
        first, *larger, whole = self.scales
        context = [first(x)]
        for pool, scale, process in zip(self.pools, larger, self.process, strict=False):
            context.append(process(resize_like(scale(pool(x)), x) + context[-1]))
        # A mean over both sides exports right with free height and width, and is broadcast by the sum.
        context.append(self.process[-1](whole(x.mean((2, 3), keepdim=True)) + context[-1]))
        joined: Tensor = self.compression(torch.cat(context, 1)) + self.shortcut(x)
        return joined


class DDRNetDecoder(nn.Module):
    """The level of stride 8 and the coarsest -> (N, head_channels, H / 8, W / 8)."""

    dynamic_size = True

    def __init__(self, config: DDRNetDecoderConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        strides = [f.stride for f in features]
        if STRIDE not in strides[:-1]:
            raise ConfigError(
                f"decoder ddrnet: needs a level of stride {STRIDE} and a coarser one, "
                f"the encoder gives {', '.join(map(str, strides))}"
            )
        self.level = strides.index(STRIDE)
        width = features[self.level].channels
        head = config.head_channels or max(width // 2, 1)
        self.context = DAPPM(features[-1].channels, config.context_channels, width)
        initialise(self.context)
        self.head = PreActivationHead(width, head)
        self.out = FeatureMap(channels=head, stride=STRIDE)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """The fine level plus the context of the coarsest, through the head."""
        fine = maps[self.level]
        decoded: Tensor = self.head(fine + resize_like(self.context(maps[-1]), fine))
        return decoded


def _pre_activated(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), conv)


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `ddrnet`."""
    register(
        DecoderPlugin(
            name="ddrnet",
            summary="DDRNet's context pooling at stride 8, for real time",
            config=DDRNetDecoderConfig,
            build=DDRNetDecoder,
        )
    )
