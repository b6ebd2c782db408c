"""Any mask file to class ids; a value that no class owns is an error, never a guess."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.images import open_upright
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    Codes: TypeAlias = NDArray[np.integer[Any]]

FORMATS = ("PNG", "TIFF", "BMP", "WEBP")  # no JPEG: it invents values at every edge
NO_JPEG = "a JPEG mask holds invented values at every edge; save masks as PNG"

Kind = Literal["values", "grey", "colors"]
"""values: one channel (also palette PNG: its indices). grey: RGB whose channels agree. colors: RGB."""


def read_mask(path: Path, classes: ClassMap) -> NDArray[np.uint8]:
    """Read a mask as `classes.encoding` says.

    Returns:
        (H, W) uint8 class ids; 255 where the file has `classes.ignore_index` or `ignore_color`.

    Raises:
        DataError: broken or missing file, a lossy format, or a value or colour that no class owns.
    """
    return decode_mask(open_mask(path), classes, path)


def open_mask(path: Path) -> Image.Image:
    """The mask's picture as it is on disk, turned upright."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"{path}: {NO_JPEG}")
    return open_upright(path, FORMATS)


def decode_mask(picture: Image.Image, classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    """See `read_mask`. `auto` reads RGB pictures as colours, others as class ids; 1-bit ones hold 0 and 1."""
    codes: Codes
    kind, codes = mask_codes(picture, path)
    encoding = classes.encoding
    if encoding == "auto":
        encoding = "color" if kind == "colors" else "class_id"
    if encoding == "color":
        if kind != "colors":
            codes = color_table(picture, path)[codes]
        labels = labels_of_colors(codes, classes)
        if (labels < 0).any():
            raise DataError(f"{path}: {stray_colors(np.unique(codes[labels < 0]).tolist())}")
    else:
        if kind == "colors":
            raise DataError(f"{path}: {not_ids(picture.mode)}")
        one_bit = picture.mode == "1"
        if codes.dtype == np.uint8 and (quick := _ids_of_bytes(codes, classes, one_bit)) is not None:
            return quick
        labels = labels_of_values(codes, classes, one_bit=one_bit)
        if (labels < 0).any():
            raise DataError(f"{path}: {stray_values(np.unique(codes[labels < 0]).tolist(), classes)}")
    ids: NDArray[np.uint8] = labels.astype(np.uint8)
    return ids


def mask_codes(picture: Image.Image, path: Path) -> tuple[Kind, Codes]:
    """What each pixel says, before any class map: (H, W) pixel values, or colours as uint32 0xRRGGBB.

    Raises:
        DataError: a kind of picture that spells neither, such as floats or CMYK.
    """
    if picture.mode == "1":
        return "values", np.asarray(picture).astype(np.uint8)
    if picture.mode in ("L", "P") or picture.mode.startswith("I"):
        return "values", np.asarray(picture)  # for "P" these are palette indices, which is what VOC-style masks mean
    if picture.mode in ("LA", "PA"):
        return "values", np.asarray(picture)[..., 0]
    if picture.mode in ("RGB", "RGBA"):
        rgb = np.asarray(picture)
        if is_grey(rgb):
            return "grey", rgb[..., 0]
        wide = rgb[..., :3].astype(np.uint32)
        return "colors", wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    raise DataError(f"{path}: {not_ids(picture.mode)}")


def is_grey(rgb: NDArray[np.uint8]) -> bool:
    """Whether red, green and blue agree everywhere in (H, W, 3 or more); the first row decides most pictures."""
    return all(
        bool((part[..., 0] == part[..., 1]).all() and (part[..., 1] == part[..., 2]).all()) for part in (rgb[:1], rgb)
    )


def color_table(picture: Image.Image, path: Path) -> NDArray[np.uint32]:
    """The colour 0xRRGGBB of each pixel value of a one-channel picture of at most 8 bits: (256,)."""
    table = np.arange(256, dtype=np.uint32) * np.uint32(0x010101)
    if picture.mode == "1":
        table[1] = 0xFFFFFF
    elif picture.mode in ("P", "PA"):
        flat = np.zeros(768, np.uint32)
        stored = picture.getpalette("RGB") or []
        flat[: len(stored)] = stored
        table = (flat[::3] << 16 | flat[1::3] << 8 | flat[2::3]).astype(np.uint32)
    elif picture.mode.startswith("I"):
        raise DataError(f"{path}: {not_colors(picture.mode)}")
    return table


_NOBODY = 254
"""Stands for values that nobody owns; the last of 255 classes, where there are that many, is taken for it."""


def _ids_of_bytes(values: Codes, classes: ClassMap, one_bit: bool) -> NDArray[np.uint8] | None:
    """Class ids of uint8 pixel values, several times as fast as by indexing; None where one may be nobody's."""
    table = labels_of_values(np.arange(256, dtype=np.uint8), classes, one_bit=one_bit)
    spelled = np.where(table < 0, _NOBODY, table).astype(np.uint8).tobytes()
    ids = np.frombuffer(bytearray(values.tobytes()).translate(spelled), np.uint8).reshape(values.shape)
    return None if (ids == _NOBODY).any() else ids


def labels_of_values(values: Codes, classes: ClassMap, *, one_bit: bool = False) -> NDArray[np.int16]:
    """Class ids of pixel values, any shape; 255 = ignore, -1 where nobody owns the value."""
    owned, ignored = classes.spelled_values, classes.ignore_values
    if classes.encoding == "binary":
        owned = ((0,), (1,)) if one_bit else ((0,), (255,))
        ignored = () if one_bit else tuple(v for v in ignored if v not in (0, 255))
    table = _value_table(owned, ignored)
    inside: Codes = values if values.dtype == np.uint8 else np.clip(values.astype(np.int64), -1, 65536)
    return table[inside]  # -1 and 65536 are the table's last two places, which nobody owns


@cache
def _value_table(owned: tuple[tuple[int, ...], ...], ignored: tuple[int, ...]) -> NDArray[np.int16]:
    table = np.full(65538, -1, np.int16)
    for label, mine in enumerate(owned):
        table[list(mine)] = label
    table[list(ignored)] = IGNORE
    return table


def labels_of_colors(colors: Codes, classes: ClassMap) -> NDArray[np.int16]:
    """The same for colours 0xRRGGBB."""
    known, ids = _color_table(classes.spelled_colors, classes.ignore_colors)
    place = np.searchsorted(known, colors).clip(max=len(known) - 1)
    return np.where(known[place] == colors, ids[place], np.int16(-1))


@cache
def _color_table(
    owned: tuple[tuple[tuple[int, int, int], ...], ...], ignored: tuple[tuple[int, int, int], ...]
) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
    pairs = {pack(c): label for label, mine in enumerate(owned) for c in mine} | {pack(c): IGNORE for c in ignored}
    return np.array(sorted(pairs), np.uint32), np.array([pairs[c] for c in sorted(pairs)], np.int16)


def pack(color: tuple[int, int, int]) -> int:
    """(red, green, blue) as 0xRRGGBB."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpack(code: int) -> tuple[int, int, int]:
    """0xRRGGBB as (red, green, blue)."""
    return code >> 16, code >> 8 & 255, code & 255


def few(items: Iterable[Any], count: int = 8) -> str:
    """The first `count` items in a line, and dots where there are more."""
    shown = [str(i) for i in items]
    return ", ".join(shown[:count]) + (", ..." if len(shown) > count else "")


def not_ids(mode: str) -> str:
    """What is said of a picture whose pixels are no class ids."""
    return f"expected one channel of class ids, found a {mode} picture; give each class its `color`"


def not_colors(mode: str) -> str:
    """What is said of a picture whose values are too wide to be colours."""
    return f"expected colours of 8 bits a channel, found a {mode} picture; use `encoding: class_id`"


def stray_values(found: list[int], classes: ClassMap) -> str:
    """What is said of pixel values that nobody owns."""
    if classes.encoding == "binary":
        return f"expected a binary mask of 0 and 255, found {few(found)}"
    ignored = f" and {', '.join(map(str, classes.ignore_values))} for ignore" if classes.ignore_values else ""
    owned = f"class ids 0 to {len(classes) - 1}"
    if classes.values is not None:
        owned = f"the values {few((v for mine in classes.values for v in mine), 24)}"
    hint = ""
    if found == [255] and len(classes) == 2 and classes.values is None:
        hint = " (0/255 masks need `encoding: binary`)"
    return f"expected {owned}{ignored}, found {few(found)}{hint}"


def stray_colors(found: list[int]) -> str:
    """What is said of colours 0xRRGGBB that nobody owns."""
    return f"{len(found)} colour(s) that no class owns: {few(map(unpack, found), 4)}"
