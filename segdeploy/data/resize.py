"""The one resize: training, evaluation and every runtime go through here (Pillow, antialiased, no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.classes import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segdeploy.model.spec import Preprocessing


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a picture of one size lies inside the network's input of another.

    The picture is scaled to `inner` (height, width) and put at `offset` (top, left) of an input of size
    `outer`; what is left over is filled.
    """

    original: tuple[int, int]
    inner: tuple[int, int]
    offset: tuple[int, int]
    outer: tuple[int, int]


def geometry(size: tuple[int, int], preprocessing: Preprocessing) -> Geometry:
    """How a picture of `size` (height, width) is placed: `stretch` fills, `letterbox` keeps proportions."""
    outer = (preprocessing.height, preprocessing.width)
    if preprocessing.resize == "stretch":
        return Geometry(size, outer, (0, 0), outer)
    factor = min(outer[0] / size[0], outer[1] / size[1])
    inner = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    inner = (min(inner[0], outer[0]), min(inner[1], outer[1]))
    offset = ((outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2)
    return Geometry(size, inner, offset, outer)


def resize_image(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 to (height, width, 3) uint8: bilinear, antialiased; letterbox bars hold the mean."""
    place = geometry(image.shape[:2], preprocessing)
    return _framed(_resize(image, place.inner, Image.Resampling.BILINEAR), place, preprocessing)


def resize_picture(picture: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The same for a picture of mode RGB, which need not become an array at its own size."""
    place = geometry((picture.height, picture.width), preprocessing)
    if place.inner != place.original:
        picture = picture.resize((place.inner[1], place.inner[0]), Image.Resampling.BILINEAR)
    return _framed(np.asarray(picture), place, preprocessing)


def resize_mask(mask: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(H, W) class ids to (height, width): nearest, so no class is invented; letterbox bars are ignored."""
    place = geometry(mask.shape[:2], preprocessing)
    inner = _resize(mask, place.inner, Image.Resampling.NEAREST)
    return inner if place.inner == place.outer else _paste(inner, np.full(place.outer, IGNORE, np.uint8), place)


def restore_mask(labels: NDArray[np.uint8], size: tuple[int, int], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The way back: labels (height, width) at the network's size to `size` (H, W) of the picture; nearest."""
    place = geometry(size, preprocessing)
    top, left = place.offset
    inner = labels[top : top + place.inner[0], left : left + place.inner[1]]
    return _resize(np.ascontiguousarray(inner), size, Image.Resampling.NEAREST)


def _resize(array: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.uint8]:
    if array.shape[:2] == size:
        return array
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how))


def _framed(inner: NDArray[np.uint8], place: Geometry, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    if place.inner == place.outer:
        return inner
    canvas = np.empty((*place.outer, 3), np.uint8)
    canvas[:] = np.round(np.array(preprocessing.mean) * 255).astype(np.uint8)
    return _paste(inner, canvas, place)


def _paste(inner: NDArray[np.uint8], canvas: NDArray[np.uint8], place: Geometry) -> NDArray[np.uint8]:
    top, left = place.offset
    canvas[top : top + place.inner[0], left : left + place.inner[1]] = inner
    return canvas
