"""ClassMap: what the pixel values of a mask mean."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
PixelValue = Annotated[int, Field(ge=0, le=65535)]
Values = Annotated[tuple[PixelValue, ...], Field(min_length=1)]
Colors = Annotated[tuple[Color, ...], Field(min_length=1)]
Encoding = Literal["auto", "class_id", "binary", "color"]


class ClassMap(Frozen, use_attribute_docstrings=False):
    """Names and colours of the classes, in order of their ids, and how masks on disk spell them."""

    names: Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_CLASSES)]
    colors: tuple[Color, ...]
    """RGB of each class in pictures, and in colour masks unless `mask_colors` says otherwise."""
    values: tuple[Values, ...] | None = None
    """Pixel values of each class in mask files; None: its id."""
    mask_colors: tuple[Colors, ...] | None = None
    """RGB colours of each class in colour masks; None: its one colour."""
    ignore_index: PixelValue | Values | None = 255
    """Value or values in mask files that mark pixels without a label; None: every pixel has one."""
    ignore_color: Color | Colors | None = None
    """The same for masks that are RGB pictures."""
    encoding: Encoding = "auto"
    """class_id: by pixel value. binary: 0 and 255 are classes 0 and 1. color: RGB. auto: by looking."""

    @model_validator(mode="after")
    def _check(self) -> ClassMap:
        if len(self.colors) != len(self.names):
            raise ValueError(f"{len(self.names)} names but {len(self.colors)} colours")
        if doubled := sorted({n for n in self.names if self.names.count(n) > 1}):
            raise ValueError(f"class names must differ, but {', '.join(doubled)} stands more than once")
        for what, owned in (("values", self.values), ("mask_colors", self.mask_colors)):
            if owned is not None and len(owned) != len(self.names):
                raise ValueError(f"{len(self.names)} names but {what} of {len(owned)} classes")
        if self.encoding == "color" and len(set(self.colors)) != len(self.colors):
            raise ValueError("with RGB masks every class needs a colour of its own")
        # A value or colour with two owners is a mistake only where that spelling can occur. Colours that were
        # chosen for pictures alone may repeat, so under "auto" they are not held against each other.
        if self.encoding == "color" or self.mask_colors is not None:
            self._one_owner("color", self.spelled_colors)
        if self.encoding in ("auto", "color"):
            self._not_ignored("color", self.spelled_colors, self.ignore_colors)
        if self.encoding in ("auto", "class_id"):
            self._one_owner("value", self.spelled_values)
        if self.encoding != "color":
            self._not_ignored("index", self.spelled_values, self.ignore_values)
        if self.encoding == "binary" and len(self.names) != 2:
            raise ValueError(f"0/255 masks have 2 classes, but {len(self.names)} are named")
        return self

    def _one_owner(self, what: str, spelled: tuple[tuple[Any, ...], ...]) -> None:
        owners: dict[Any, str] = {}
        for name, mine in zip(self.names, spelled, strict=True):
            for item in mine:
                if owners.setdefault(item, name) != name:
                    raise ValueError(f"{what} {item} belongs to class {owners[item]!r} and to class {name!r}")

    def _not_ignored(self, what: str, spelled: tuple[tuple[Any, ...], ...], ignored: tuple[Any, ...]) -> None:
        for name, mine in zip(self.names, spelled, strict=True):
            for item in set(mine) & set(ignored):
                kind = "colour" if what == "color" else "value" if self.values else "id"
                free = 256 if what == "color" else max(v for values in spelled for v in values) + 1
                hint = f"; use a value from {free} to 255, or null" if free < 256 else ""
                raise ValueError(f"ignore_{what} {item} is the {kind} of class {name!r}{hint}")

    @property
    def spelled_values(self) -> tuple[Values, ...]:
        """The pixel values of each class in single-channel masks: (C,) tuples."""
        return tuple((i,) for i in range(len(self))) if self.values is None else self.values

    @property
    def spelled_colors(self) -> tuple[Colors, ...]:
        """The RGB colours of each class in colour masks: (C,) tuples."""
        return tuple((c,) for c in self.colors) if self.mask_colors is None else self.mask_colors

    @property
    def ignore_values(self) -> tuple[int, ...]:
        """`ignore_index` as a tuple."""
        return ignored_values(self.ignore_index)

    @property
    def ignore_colors(self) -> tuple[Color, ...]:
        """`ignore_color` as a tuple."""
        return ignored_colors(self.ignore_color)

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


def ignored_values(index: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """One ignored value, several or none, as a tuple."""
    return () if index is None else (index,) if isinstance(index, int) else index


def ignored_colors(color: Color | Colors | None) -> tuple[Color, ...]:
    """One ignored colour, several or none, as a tuple."""
    several: Any = color
    return () if color is None else (several,) if isinstance(color[0], int) else several


def default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` distinct RGB colours: black for class 0, then hues spaced by the golden angle."""
    colors = [(0, 0, 0)]
    for i in range(1, count):
        r, g, b = colorsys.hsv_to_rgb(i * 0.61803 % 1.0, 0.85 - 0.3 * (i // 7 % 2), 0.95 - 0.2 * (i // 14 % 2))
        colors.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colors[:count])
