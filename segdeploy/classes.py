"""ClassMap: what the pixel values of a mask mean."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from segdeploy.frozen import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORE = 255
"""Inside segdeploy a pixel without a label is always 255, whatever the files on disk use."""

MAX_CLASSES = 255
"""Class ids are uint8 and 255 is taken."""

Level = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Level, Level, Level]
Encoding = Literal["auto", "class_id", "binary", "color"]


class ClassMap(Frozen):
    """Names and colours of the classes, in order of their ids, and how masks on disk spell them."""

    names: Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_CLASSES)]
    colors: tuple[Color, ...]
    ignore_index: Annotated[int, Field(ge=0, le=65535)] | None = 255
    """Value in mask files that marks pixels without a label; None: every pixel has one."""
    ignore_color: Color | None = None
    """The same for masks that are RGB pictures."""
    encoding: Encoding = "auto"
    """class_id: pixel value = id. binary: 0 and 255 are classes 0 and 1. color: RGB by `colors`. auto: by looking."""

    @model_validator(mode="after")
    def _check(self) -> ClassMap:
        if len(self.colors) != len(self.names):
            raise ValueError(f"{len(self.names)} names but {len(self.colors)} colours")
        if doubled := sorted({n for n in self.names if self.names.count(n) > 1}):
            raise ValueError(f"class names must differ, but {', '.join(doubled)} stands more than once")
        if self.encoding == "color" and len(set(self.colors)) != len(self.colors):
            raise ValueError("with RGB masks every class needs a colour of its own")
        if self.encoding in ("auto", "color") and self.ignore_color in self.colors:
            raise ValueError(
                f"ignore_color {self.ignore_color} is the colour of class "
                f"{self.names[self.colors.index(self.ignore_color)]!r}"
            )
        if self.encoding != "color" and self.ignore_index is not None and self.ignore_index < len(self.names):
            raise ValueError(
                f"ignore_index {self.ignore_index} is the id of class {self.names[self.ignore_index]!r}; "
                f"use a value from {len(self.names)} to 255, or null"
            )
        if self.encoding == "binary" and len(self.names) != 2:
            raise ValueError(f"0/255 masks have 2 classes, but {len(self.names)} are named")
        return self

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.names)

    def colorize(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class ids (H, W) to RGB (H, W, 3), both uint8; ignored pixels become black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colors
        return table[labels]

    def palette(self) -> list[int]:
        """The colours as the flat list of 768 values that an indexed PNG carries."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colors
        return [int(v) for v in table.ravel()]


def default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` distinct RGB colours: black for class 0, then hues spaced by the golden angle."""
    colors = [(0, 0, 0)]
    for i in range(1, count):
        r, g, b = colorsys.hsv_to_rgb(i * 0.61803 % 1.0, 0.85 - 0.3 * (i // 7 % 2), 0.95 - 0.2 * (i // 14 % 2))
        colors.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colors[:count])
