"""Any mask file to class ids; a value that no class owns is an error, never a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.classes import IGNORE, ClassMap, Encoding
from segdeploy.data.images import open_upright
from segdeploy.errors import DataError

if TYPE_CHECKING:
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
    labels: NDArray[np.uint8] = values.astype(np.uint8)
    ignored = np.zeros(values.shape, bool) if classes.ignore_index is None else values == classes.ignore_index
    stray = (values < 0) | (values >= len(classes))
    if (stray & ~ignored).any():
        found = np.unique(values[stray & ~ignored])
        shown = ", ".join(str(int(v)) for v in found[:8]) + (", ..." if len(found) > 8 else "")
        hint = " (0/255 masks need `encoding: binary`)" if set(found.tolist()) == {255} and len(classes) == 2 else ""
        raise DataError(
            f"{path}: expected class ids 0 to {len(classes) - 1}"
            f"{'' if classes.ignore_index is None else f' and {classes.ignore_index} for ignore'}, found {shown}{hint}"
        )
    labels[ignored] = IGNORE
    return labels


def _from_binary(values: NDArray[np.integer], classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    found = np.unique(values)
    ignore = classes.ignore_index if classes.ignore_index not in (0, 255) else None
    strays = [int(v) for v in found if int(v) not in (0, 255, ignore)]
    if strays:
        raise DataError(f"{path}: expected a binary mask of 0 and 255, found {', '.join(map(str, strays[:8]))}")
    labels: NDArray[np.uint8] = (values == 255).astype(np.uint8)
    if ignore is not None:
        labels[values == ignore] = IGNORE
    return labels


def _from_colors(rgb: NDArray[np.uint8], classes: ClassMap, path: Path) -> NDArray[np.uint8]:
    codes = _code(rgb.astype(np.uint32))
    colors = list(classes.colors) + ([classes.ignore_color] if classes.ignore_color else [])
    ids = [*range(len(classes)), IGNORE]
    known = _code(np.array(colors, np.uint32))
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
