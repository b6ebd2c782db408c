"""Small pictures for the pages, as data URIs: image, truth, prediction, errors."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.classes import IGNORE
from segdeploy.predict import blend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segdeploy.classes import ClassMap

WIDTH = 360
"""Longest side of a picture, pixels."""
_ERROR = (220, 40, 40)
_UNLABELLED = (112, 128, 160)


def draw_labels(image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: ClassMap) -> NDArray[np.uint8]:
    """The image (H, W, 3) under the colours of its labels (H, W); pixels without a label are black."""
    shown = blend(image, labels, classes, 0.6)
    shown[labels == IGNORE] = 0
    return shown


def draw_errors(image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image in grey with its wrong pixels in red, and those without a label in blue-grey."""
    shown = draw_marked(image, (truth != predicted) & (truth != IGNORE))
    shown[truth == IGNORE] = _UNLABELLED
    return shown


def draw_marked(image: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image in grey, with red pixels."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5 + 96
    shown: NDArray[np.uint8] = grey.astype(np.uint8)
    shown[where] = _ERROR
    return shown


def to_uri(picture: NDArray[np.uint8]) -> str:
    """The picture (H, W, 3) as a JPEG of at most `WIDTH` pixels a side."""
    image = Image.fromarray(picture)
    image.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
