"""Example pictures for the report: best, middling and worst images, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.benchmark.result import Picture
from segdeploy.classes import IGNORE
from segdeploy.data.images import read_image
from segdeploy.data.masks import read_mask
from segdeploy.data.resize import restore_mask
from segdeploy.predict import blend

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec

WIDTH = 360
_ERROR = (220, 40, 40)
_UNLABELLED = (112, 128, 160)


def make_pictures(
    samples: Sequence[Sample], spec: ModelSpec, labels: Path | None, scores: Sequence[float | None], count: int
) -> list[Picture]:
    """`count` images from the worst to the best by their own mean IoU; `labels` holds NNNNNN.png per sample."""
    if labels is None or count == 0:
        return []
    ranked = sorted((s, i) for i, s in enumerate(scores) if s is not None)
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    pictures = []
    for place in places:
        score, index = ranked[int(place)]
        sample = samples[index]
        assert sample.mask is not None
        image = read_image(sample.image)
        truth = read_mask(sample.mask, spec.classes)
        found = restore_mask(np.asarray(Image.open(labels / f"{index:06d}.png")), truth.shape, spec.preprocessing)
        pictures.append(
            Picture(
                name=sample.image.name,
                image_iou=score,
                image=_uri(image),
                truth=_uri(_truth(image, truth, spec)),
                predicted=_uri(blend(image, found, spec.classes, 0.6)),
                errors=_uri(_errors(image, truth, found)),
            )
        )
    return pictures


def _truth(image: NDArray[np.uint8], truth: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.uint8]:
    shown = blend(image, truth, spec.classes, 0.6)
    shown[truth == IGNORE] = 0
    return shown


def _errors(image: NDArray[np.uint8], truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5 + 96
    shown: NDArray[np.uint8] = grey.astype(np.uint8)
    shown[(truth != found) & (truth != IGNORE)] = _ERROR
    shown[truth == IGNORE] = _UNLABELLED
    return shown


def _uri(picture: NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
