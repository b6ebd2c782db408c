"""Decoder `deeplabv3plus` (Chen et al. 2018, https://arxiv.org/abs/1802.02611, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segdeploy.errors import ConfigError
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

SKIP_STRIDE = 4


class DeepLabV3PlusConfig(Section):
    """Looks at the coarsest level at several distances, and sharpens the result with one fine level.

    Best on an encoder whose last stages are dilated: `encoder: {type: timm, output_stride: 16}`.
    """

    channels: Annotated[int, Field(ge=8, le=2048)] = 256
    """Width of the pyramid's branches, and of the result."""
    atrous_rates: Annotated[tuple[Annotated[int, Field(ge=1, le=128)], ...], Field(min_length=1, max_length=8)] = (
        6,
        12,
        18,
    )
    """Dilation of each 3x3 branch. The paper's are these for an output stride of 16, and twice these for 8."""
    separable: bool = True
    """Whether these branches are depthwise and pointwise convolutions instead of full ones."""
    skip_channels: Annotated[int, Field(ge=4, le=1024)] = 48
    """Width to which the fine level is brought, so that it does not outweigh the context."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the pyramid's result that training drops."""
    align_corners: bool = False
    """How the context is upsampled to the fine level; true: as segmentation_models_pytorch does it."""


class SeparableConv(nn.Sequential):
    """A depthwise 3x3 convolution, then a pointwise one."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )


class GlobalMean(nn.Module):
    """(N, C, H, W) -> (N, C, 1, 1): a plain reduction, which exports right with free height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over height and width.

        Raises:
            ConfigError: training with one image; the batch normalisation that follows has nothing to compare.
        """
        if self.training and x.shape[0] == 1:
            raise ConfigError(
                "decoder deeplabv3plus: image pooling cannot train on one image at a time; "
                "set trainer.batch_size to 2 or more"
            )
        return x.mean((2, 3), keepdim=True)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, config: DeepLabV3PlusConfig) -> None:
        super().__init__()
        width = config.channels
        branches = [_norm_relu(nn.Conv2d(in_channels, width, 1, bias=False), width)]
        for rate in config.atrous_rates:
            conv = (
                SeparableConv(in_channels, width, rate)
                if config.separable
                else nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate, bias=False)
            )
            branches.append(_norm_relu(conv, width))
        pooled = nn.Sequential(GlobalMean(), *_norm_relu(nn.Conv2d(in_channels, width, 1, bias=False), width))
        self.convs = nn.ModuleList([*branches, pooled])
        joined = nn.Conv2d(len(self.convs) * width, width, 1, bias=False)
        self.project = nn.Sequential(*_norm_relu(joined, width), nn.Dropout(config.dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Every branch on the same map, then a 1x1 convolution over all of them."""
        *near, pooled = (conv(x) for conv in self.convs)
        joined: Tensor = self.project(torch.cat([*near, pooled.expand_as(near[0])], 1))
        return joined


class DeepLabV3Plus(nn.Module):
    """The coarsest level and the finest of stride >= 4, its skip -> (N, channels, H / s, W / s), s the skip's stride.

    Its parameters carry the names of segmentation_models_pytorch's `DeepLabV3PlusDecoder`: a state dict of one
    loads into the other as it is.
    """

    dynamic_size = True

    def __init__(self, config: DeepLabV3PlusConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        strides = [f.stride for f in features]
        fine = [i for i, stride in enumerate(strides) if stride >= SKIP_STRIDE]
        if len(fine) < 2:
            raise ConfigError(
                f"decoder deeplabv3plus: needs a level of stride {SKIP_STRIDE} or above and a coarser one, "
                f"the encoder gives {', '.join(map(str, strides))}"
            )
        self.skip = fine[0]
        self.align_corners = config.align_corners
        width = config.channels
        self.aspp = nn.Sequential(ASPP(features[-1].channels, config), *_norm_relu(SeparableConv(width, width), width))
        reduced = nn.Conv2d(features[self.skip].channels, config.skip_channels, 1, bias=False)
        self.block1 = _norm_relu(reduced, config.skip_channels)
        self.block2 = _norm_relu(SeparableConv(config.skip_channels + width, width), width)
        self.out = FeatureMap(channels=width, stride=strides[self.skip])

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Context from the coarsest map, upsampled to the skip's size and refined together with it."""
        skip = self.block1(maps[self.skip])
        size = skip.shape[-2:]  # by size and not by factor, so that odd sizes fit
        context = F.interpolate(self.aspp(maps[-1]), size=size, mode="bilinear", align_corners=self.align_corners)
        refined: Tensor = self.block2(torch.cat([context, skip], 1))
        return refined


def _norm_relu(conv: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `deeplabv3plus`."""
    register(
        DecoderPlugin(
            name="deeplabv3plus",
            summary="DeepLabV3+: context at several rates and one skip",
            config=DeepLabV3PlusConfig,
            build=DeepLabV3Plus,
        )
    )
