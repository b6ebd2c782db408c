"""Pictures for the report, as data URIs: from the worst image to the best, and the worst of each row."""

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
    samples: Sequence[Sample], spec: ModelSpec, labels: Path, scores: Sequence[float | None], count: int
) -> list[Picture]:
    """`count` images from the worst to the best by their own mean IoU; `labels` holds NNNNNN.png per sample."""
    ranked = sorted((s, i) for i, s in enumerate(scores) if s is not None)
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [_picture(samples, spec, labels, ranked[int(place)][1], scores) for place in places]


def worst_pictures(
    samples: Sequence[Sample],
    spec: ModelSpec,
    labels: Path,
    reference: Path | None,
    scores: Sequence[float | None],
    agreement: Sequence[float] | None,
    count: int,
) -> tuple[Picture, ...]:
    """`count` images with the smallest agreement with `reference`, or, of the reference itself, the lowest IoU.

    An image whose labels agree on every pixel is no bad one and is left out.
    """
    if agreement is None or reference is None:
        return ()
    if labels == reference:
        ranked = sorted((s, i) for i, s in enumerate(scores) if s is not None)
    else:
        ranked = sorted((share, i) for i, share in enumerate(agreement) if share < 1)
    return tuple(_picture(samples, spec, labels, i, scores, reference, agreement) for _, i in ranked[:count])


def _picture(
    samples: Sequence[Sample],
    spec: ModelSpec,
    labels: Path,
    index: int,
    scores: Sequence[float | None],
    reference: Path | None = None,
    agreement: Sequence[float] | None = None,
) -> Picture:
    sample = samples[index]
    assert sample.mask is not None
    image = read_image(sample.image)
    truth = read_mask(sample.mask, spec.classes)

    def read_labels(folder: Path) -> NDArray[np.uint8]:
        return restore_mask(np.asarray(Image.open(folder / f"{index:06d}.png")), truth.shape, spec.preprocessing)

    found = read_labels(labels)
    disagreement = None
    if reference is not None and reference != labels:
        disagreement = _uri(_marked(image, found != read_labels(reference)))
    return Picture(
        name=sample.image.name,
        image_iou=scores[index],
        image=_uri(image),
        truth=_uri(_truth(image, truth, spec)),
        predicted=_uri(blend(image, found, spec.classes, 0.6)),
        errors=_uri(_errors(image, truth, found)),
        agreement=agreement[index] if agreement is not None else None,
        disagreement=disagreement,
    )


def _truth(image: NDArray[np.uint8], truth: NDArray[np.uint8], spec: ModelSpec) -> NDArray[np.uint8]:
    shown = blend(image, truth, spec.classes, 0.6)
    shown[truth == IGNORE] = 0
    return shown


def _errors(image: NDArray[np.uint8], truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shown = _marked(image, (truth != found) & (truth != IGNORE))
    shown[truth == IGNORE] = _UNLABELLED
    return shown


def _marked(image: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image in grey, with red pixels."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5 + 96
    shown: NDArray[np.uint8] = grey.astype(np.uint8)
    shown[where] = _ERROR
    return shown


def _uri(picture: NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
