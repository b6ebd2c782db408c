"""The network of two resolutions: one branch stays at stride 8, the other goes down to 64, and both keep talking."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy_realtime.ddrnet.blocks import Bottleneck, basic_layer, conv_bn, initialise, resize_like


@dataclass(frozen=True, slots=True)
class Variant:
    """`planes`: width of the stem; `blocks`: basic blocks of the stages 1 to 4; `head`: width of the heads.

    `third`: in how many steps stage 3 is taken, with an exchange between the branches after each.
    """

    name: str
    planes: int
    blocks: tuple[int, int, int, int]
    head: int
    third: int = 1


VARIANTS = {
    "23_slim": Variant("DDRNet-23-slim", 32, (2, 2, 2, 2), 64),
    "23": Variant("DDRNet-23", 64, (2, 2, 2, 2), 128),
    "39": Variant("DDRNet-39", 64, (3, 4, 6, 3), 256, third=2),
}


class Exchange(nn.Module):
    """A step of both branches, and what they tell each other after it.

    `halvings`: how often the low branch has half the size of the high one.
    """

    def __init__(self, low: nn.Module, high: nn.Module, widths: tuple[int, int], halvings: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        low_channels, high_channels = widths
        self.compress = nn.Sequential(*conv_bn(low_channels, high_channels, 1))
        down = conv_bn(high_channels, low_channels // halvings, 3, 2)
        if halvings == 2:
            down += [nn.ReLU(inplace=True), *conv_bn(low_channels // 2, low_channels, 3, 2)]
        self.down = nn.Sequential(*down)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps activated -> both after the step and the exchange, not activated."""
        low, high = self.low(low), self.high(high)
        return low + self.down(F.relu(high)), high + resize_like(self.compress(F.relu(low)), high)


class DualResNet(nn.Module):
    """(N, 3, H, W) -> maps at strides 8, 16, 32 and 64, and the high branch as it is after stage 3.

    `channels` are those of the four maps, `middle_channels` those of the last.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        planes = variant.planes
        high, low = planes * 2, planes * 4
        first, second, third, fourth = variant.blocks
        self.stem = nn.Sequential(
            nn.Conv2d(3, planes, 3, 2, 1),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, 2, 1),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
        )
        self.layer1 = basic_layer(planes, planes, first)
        self.layer2 = basic_layer(planes, high, second, 2)
        blocks = third // variant.third
        self.third = nn.ModuleList(
            Exchange(
                basic_layer(low if step else high, low, blocks, 1 if step else 2),
                basic_layer(high, high, blocks),
                (low, high),
                halvings=1,
            )
            for step in range(variant.third)
        )
        self.fourth = Exchange(
            basic_layer(low, low * 2, fourth, 2), basic_layer(high, high, fourth), (low * 2, high), halvings=2
        )
        self.high = Bottleneck(high, high, 1)
        self.low = Bottleneck(low * 2, low * 2, 2)
        self.channels = (high * 2, low, low * 2, low * 4)
        self.middle_channels = high
        initialise(self)

    def forward(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The maps, finest first, and the middle; those of strides 16 and 32 are activated, the others are not."""
        low = high = middle = F.relu(self.layer2(F.relu(self.layer1(self.stem(image)))))
        for exchange in self.third:
            low, middle = exchange(low, high)
            low, high = F.relu(low), F.relu(middle)
        stride16 = low
        low, high = (F.relu(x) for x in self.fourth(low, high))
        return (self.high(high), stride16, low, self.low(low)), middle
