"""`auto_augmentation`: TrivialAugment, RandAugment and AutoAugment for image and mask.

torchvision's own classes refuse masks and draw from torch's global generator. So the draws are made here, what moves
pixels becomes part of the batch's one affine map, and what changes colours is torchvision's own v2 function.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torchvision.transforms.v2 import functional as v2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from segdeploy.config.augmentation import AutoAugmentation
    from segdeploy.data.augment_geometry import Size

Operation = tuple[str, float]
"""A name and its strength, as torchvision has them."""

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_SIGNED = (*_GEOMETRIC, "Brightness", "Color", "Contrast", "Sharpness")
NAMES = ("Identity", *_SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
"""What TrivialAugment and RandAugment choose from."""

# Pairs of (operation, probability, strength of 9) that were found on ImageNet: Cubuk et al. 2019, table 9.
POLICIES: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)

_COLOR: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Brightness": lambda x, m: v2.adjust_brightness(x, 1 + m),
    "Color": lambda x, m: v2.adjust_saturation(x, 1 + m),
    "Contrast": lambda x, m: v2.adjust_contrast(x, 1 + m),
    "Sharpness": lambda x, m: v2.adjust_sharpness(x, 1 + m),
    "Posterize": lambda x, m: v2.posterize(x, int(m)),
    "Solarize": lambda x, m: v2.solarize(x, m),
    "AutoContrast": lambda x, _: v2.autocontrast(x),
    "Equalize": lambda x, _: v2.equalize(x),
    "Invert": lambda x, _: v2.invert(x),
}


def draw_operations(
    step: AutoAugmentation, count: int, picture: Size, generator: torch.Generator
) -> list[list[Operation]]:
    """For each of `count` pictures of size `picture` the operations, in their order."""
    fires = torch.rand(count, generator=generator) < step.probability
    draws = torch.rand(count, 2, 3, generator=generator, dtype=torch.float64).tolist()
    drawn = [_draw(step.method, two, picture) for two in draws]
    return [operations if fire else [] for operations, fire in zip(drawn, fires.tolist(), strict=True)]


def _draw(method: str, draws: Sequence[Sequence[float]], picture: Size) -> list[Operation]:
    """`draws` are numbers from 0 to 1: three for the first operation and three for the second."""
    if method == "auto_augment":
        pair = POLICIES[int(draws[0][0] * len(POLICIES))]
        return [
            (name, _signed(name, strength(name, level / 9, picture, wide=False), draw[2]))
            for (name, probability, level), draw in zip(pair, draws, strict=True)
            if draw[1] < probability
        ]
    wide = method == "trivial_augment"
    found = []
    for choice, level, sign in draws[:1] if wide else draws:
        name = NAMES[int(choice * len(NAMES))]
        strong = strength(name, int(level * 31) / 30 if wide else 9 / 30, picture, wide=wide)
        found.append((name, _signed(name, strong, sign)))
    return found


def _signed(name: str, strong: float, draw: float) -> float:
    return -strong if name in _SIGNED and draw < 0.5 else strong


def strength(name: str, level: float, picture: Size, *, wide: bool) -> float:
    """How strong an operation is at a level from 0 to 1; `wide`: in TrivialAugment's wide space."""
    if name in ("ShearX", "ShearY"):
        return level * (0.99 if wide else 0.3)
    if name in ("TranslateX", "TranslateY"):
        return level * (32 if wide else 150 / 331 * picture[name == "TranslateX"])
    if name == "Rotate":
        return level * (135 if wide else 30)
    if name == "Posterize":
        return round(8 - level * (6 if wide else 4))
    if name == "Solarize":
        return 1 - level
    return level * (0.99 if wide else 0.9) if name in _SIGNED else 0.0


def warp_of(operations: Sequence[Sequence[Operation]], picture: Size) -> Tensor:
    """(N, 3, 3) maps from the moved pictures' pixels to the given ones', (x, y, 1) from the centre.

    Shears leave the top left corner where it is; what they turn about is not the centre, as in torchvision.
    """
    height, width = picture
    maps = torch.eye(3).repeat(len(operations), 1, 1)
    for of_one, mine in zip(operations, maps, strict=True):
        for name, strong in of_one:
            step = torch.eye(3)
            if name == "ShearX":
                step[0, 1:] = torch.tensor([strong, strong * height / 2])
            elif name == "ShearY":
                step[1] = torch.tensor([strong, 1, strong * width / 2])
            elif name in ("TranslateX", "TranslateY"):
                step[int(name == "TranslateY"), 2] = -int(strong)
            elif name == "Rotate":
                cos, sin = math.cos(math.radians(strong)), math.sin(math.radians(strong))
                step[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]])
            mine.copy_(mine @ step)
    return maps


def recolor_each(x: Tensor, operations: Sequence[Sequence[Operation]]) -> Tensor:
    """The operations that change colours, on (N, 3, H, W) images on the scale 0..1."""
    if not any(name in _COLOR for of_one in operations for name, _ in of_one):
        return x
    x = x.clamp(0, 1)
    for i, of_one in enumerate(operations):
        for name, strong in of_one:
            if name in _COLOR:
                x[i] = _COLOR[name](x[i], strong)
    return x


def moves_pixels(operations: Sequence[Sequence[Operation]]) -> bool:
    """Whether one of them is geometric."""
    return any(name in _GEOMETRIC for of_one in operations for name, _ in of_one)
