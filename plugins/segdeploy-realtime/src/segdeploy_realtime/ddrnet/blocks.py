"""What encoder and decoder are made of. Layers end before their activation; whoever reads a map activates it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; (N, in, H, W) -> (N, channels, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, *, activate: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, activated unless the block ends its layer."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        return F.relu(y) if self.activate else y


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut; the result has twice the channels, and no activation."""

    expansion = 2

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        wide = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample = _shortcut(in_channels, wide, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        summed: Tensor = self.bn3(self.conv3(y)) + self.downsample(x)
        return summed


class PreActivationHead(nn.Module):
    """(N, in, H, W) -> (N, out, H, W): the paper's segmentation head without its class layer."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate, a 3x3 convolution, normalise and activate."""
        return F.relu(self.bn2(self.conv1(F.relu(self.bn1(x)))))


def basic_layer(in_channels: int, channels: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """`blocks` basic blocks, the first with `stride`, the last without an activation."""
    sides = [(in_channels, stride), *[(channels, 1)] * (blocks - 1)]
    return nn.Sequential(
        *(BasicBlock(width, channels, step, activate=i < blocks - 1) for i, (width, step) in enumerate(sides))
    )


def conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias and its normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """x at the height and width of `reference`, bilinear; by size, so that odd sizes fit."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def initialise(module: nn.Module) -> None:
    """Convolutions after He et al. 2015 (https://arxiv.org/abs/1502.01852), by what leaves them."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))
