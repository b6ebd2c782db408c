"""Pictures for the report, as data URIs: from the worst image to the best, and the worst of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.benchmark.result import Picture
from segdeploy.data.images import read_image
from segdeploy.data.masks import read_mask
from segdeploy.data.resize import restore_mask
from segdeploy.pages.pictures import draw_errors, draw_labels, draw_marked, to_uri

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec


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
        disagreement = to_uri(draw_marked(image, found != read_labels(reference)))
    return Picture(
        name=sample.image.name,
        image_iou=scores[index],
        image=to_uri(image),
        truth=to_uri(draw_labels(image, truth, spec.classes)),
        predicted=to_uri(draw_labels(image, found, spec.classes)),
        errors=to_uri(draw_errors(image, truth, found)),
        agreement=agreement[index] if agreement is not None else None,
        disagreement=disagreement,
    )
