"""Any mask file to class ids; a value that no class owns is an error, never a guess."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.classes import IGNORE, ClassMap, Encoding
from segdeploy.data.images import open_upright
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

FORMATS = ("PNG", "TIFF", "BMP", "WEBP")  # no JPEG: it invents values at every edge


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
        raise DataError(f"{path}: a JPEG mask holds invented values at every edge; save masks as PNG")
    return open_upright(path, FORMATS)


def decode_mask(picture: Image.Image, classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    """See `read_mask`. `auto` reads RGB pictures as colours, others as class ids; 1-bit ones hold 0 and 1."""
    encoding = classes.encoding
    if encoding == "auto":
        encoding = auto_encoding(picture)
    if encoding == "color":
        return _from_colors(np.asarray(picture.convert("RGBA").convert("RGB")), classes, path)
    values = _single_channel(picture, path)
    if encoding == "binary":
        values = values * 255 if picture.mode == "1" else values
        return _from_binary(values, classes, path)
    return _from_ids(values, classes, path)


def auto_encoding(picture: Image.Image) -> Encoding:
    """What one picture looks like: "color" or "class_id"."""
    if picture.mode in ("RGB", "RGBA") and not _is_grey(np.asarray(picture.convert("RGB"))):
        return "color"
    return "class_id"


def mask_values(picture: Image.Image, path: Path) -> NDArray[np.integer]:
    """The distinct values of a mask that is not a colour picture."""
    return np.unique(_single_channel(picture, path))


def _is_grey(rgb: NDArray[np.uint8]) -> bool:
    return bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())


def _single_channel(picture: Image.Image, path: Path) -> NDArray[np.integer]:
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in ("L", "P") or picture.mode.startswith("I"):
        return np.asarray(picture)  # for "P" these are palette indices, which is what VOC-style masks mean
    rgb = np.asarray(picture.convert("RGB"))
    if picture.mode in ("LA", "RGB", "RGBA") and _is_grey(rgb):
        return rgb[..., 0]
    raise DataError(
        f"{path}: expected one channel of class ids, found a {picture.mode} picture; give each class its `color`"
    )


def _from_ids(values: NDArray[np.integer], classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    table = _id_table(classes.spelled_values, classes.ignore_values)
    inside = values if values.dtype == np.uint8 else np.clip(values, -1, 65536)
    codes = table[inside]  # -1 and 65536 are the table's last two places, which nobody owns
    stray = codes < 0
    if stray.any():
        found = np.unique(values[stray])
        raise DataError(f"{path}: expected {_expected(classes)}, found {_few(found)}{_hint(found, classes)}")
    labels: NDArray[np.uint8] = codes.astype(np.uint8)
    return labels


@cache
def _id_table(owned: tuple[tuple[int, ...], ...], ignored: tuple[int, ...]) -> NDArray[np.int16]:
    """Class id by pixel value, (65538,) int16; -1 where nobody owns the value."""
    table = np.full(65538, -1, np.int16)
    for label, mine in enumerate(owned):
        table[list(mine)] = label
    table[list(ignored)] = IGNORE
    return table


def _expected(classes: ClassMap) -> str:
    ignored = f" and {', '.join(map(str, classes.ignore_values))} for ignore" if classes.ignore_values else ""
    if classes.values is None:
        return f"class ids 0 to {len(classes) - 1}{ignored}"
    return f"the values {_few([v for mine in classes.values for v in mine], 24)}{ignored}"


def _few(values: Iterable[Any], count: int = 8) -> str:
    shown = [int(v) for v in values]
    return ", ".join(map(str, shown[:count])) + (", ..." if len(shown) > count else "")


def _hint(found: NDArray[np.integer], classes: ClassMap) -> str:
    if set(found.tolist()) == {255} and len(classes) == 2 and classes.values is None:
        return " (0/255 masks need `encoding: binary`)"
    return ""


def _from_binary(values: NDArray[np.integer], classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    ignored = sorted(set(classes.ignore_values) - {0, 255})
    strays = sorted({int(v) for v in np.unique(values)} - {0, 255, *ignored})
    if strays:
        raise DataError(f"{path}: expected a binary mask of 0 and 255, found {_few(strays)}")
    labels: NDArray[np.uint8] = (values == 255).astype(np.uint8)
    labels[np.isin(values, ignored)] = IGNORE
    return labels


def _from_colors(rgb: NDArray[np.uint8], classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    codes = _code(rgb.astype(np.uint32))
    owned = [(c, label) for label, mine in enumerate(classes.spelled_colors) for c in mine]
    owned += [(c, IGNORE) for c in classes.ignore_colors]
    known, ids = _code(np.array([c for c, _ in owned], np.uint32)), [label for _, label in owned]
    order = np.argsort(known)
    place = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    hit = known[order][place] == codes
    if not hit.all():
        stray = np.unique(codes[~hit])
        shown = ", ".join(str((int(c) >> 16, int(c) >> 8 & 255, int(c) & 255)) for c in stray[:4])
        raise DataError(
            f"{path}: {len(stray)} colour(s) that no class owns: {shown}{', ...' if len(stray) > 4 else ''}"
        )
    labels: NDArray[np.uint8] = np.array(ids, np.uint8)[order][place]
    return labels


def _code(rgb: NDArray[np.uint32]) -> NDArray[np.uint32]:
    code: NDArray[np.uint32] = rgb @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return code
