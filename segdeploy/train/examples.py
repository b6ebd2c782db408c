"""The validation images that the network does worst and best on, kept while they are scored, drawn once at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segdeploy.data.resize import geometry, restore_mask
from segdeploy.metrics import Scores
from segdeploy.pages.pictures import WIDTH, draw_errors, draw_labels, to_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segdeploy.evaluate import Example
    from segdeploy.model.spec import ModelSpec

KEPT = 3
"""Images at each end."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One scored image: mean IoU over the classes in truth or prediction, place in the table, image, mask, labels."""

    iou: float
    place: int
    example: Example
    labels: NDArray[np.uint8]


class Extremes:
    """Keeps `KEPT` images at each end; the memory that it takes does not grow with the table.

    Args:
        first, step: which places of the table are scored here: of several processes each has a share of its own.
    """

    def __init__(self, first: int = 0, step: int = 1) -> None:
        self.place, self.step = first, step
        self.worst: list[Seen] = []
        """Lowest first."""
        self.best: list[Seen] = []
        """Highest first."""

    def add(self, example: Example, labels: NDArray[np.uint8], pairs: NDArray[np.int64]) -> None:
        """For `on_scored` of `segdeploy.evaluate.evaluate`; an image without a labelled pixel is left out."""
        iou = Scores(pairs).mean_iou
        if not math.isnan(iou):
            seen = Seen(iou, self.place, example, labels)
            self._keep([*self.worst, seen], [*self.best, seen])
        self.place += self.step

    def _keep(self, worst: list[Seen], best: list[Seen]) -> None:
        self.worst = sorted(worst, key=lambda s: (s.iou, s.place))[:KEPT]
        self.best = sorted(best, key=lambda s: (-s.iou, s.place))[:KEPT]

    @staticmethod
    def joined(shares: Sequence[Extremes]) -> Extremes:
        """Those of the whole table, from all processes' shares."""
        whole = Extremes()
        whole._keep([s for share in shares for s in share.worst], [s for share in shares for s in share.best])
        return whole

    def draw(self, spec: ModelSpec) -> dict[str, list[dict[str, Any]]]:
        """JSON-ready: `worst` and `best`, each image's name, mean IoU and pictures; none stands in both."""
        shown = {s.place for s in self.worst}
        ends = {"worst": self.worst, "best": [s for s in self.best if s.place not in shown]}
        return {end: [_draw(seen, spec) for seen in some] for end, some in ends.items()}


def _draw(seen: Seen, spec: ModelSpec) -> dict[str, Any]:
    """At the picture's own proportions, small; what the network saw, not the file, which need not be read again."""
    own = seen.example.mask.shape
    factor = min(1.0, WIDTH / max(own))
    size = (max(1, round(own[0] * factor)), max(1, round(own[1] * factor)))
    place = geometry(own, spec.preprocessing)
    (top, left), (height, width) = place.offset, place.inner
    inner = Image.fromarray(np.ascontiguousarray(seen.example.image[top : top + height, left : left + width]))
    image = np.asarray(inner.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    truth = np.asarray(Image.fromarray(seen.example.mask).resize((size[1], size[0]), Image.Resampling.NEAREST))
    labels = np.ascontiguousarray(restore_mask(seen.labels, own, spec.preprocessing))
    found = np.asarray(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))
    return {
        "name": seen.example.sample.image.name,
        "iou": seen.iou,
        "image": to_uri(image),
        "truth": to_uri(draw_labels(image, truth, spec.classes)),
        "predicted": to_uri(draw_labels(image, found, spec.classes)),
        "errors": to_uri(draw_errors(image, truth, found)),
    }
