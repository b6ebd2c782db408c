"""Accuracy of every entry on the whole table, against torch's own, in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.benchmark.group import differs
from segdeploy.benchmark.pictures import worst_pictures
from segdeploy.benchmark.process import RowError
from segdeploy.benchmark.result import Accuracy, ClassScore
from segdeploy.metrics import Scores, mean_drop, none_if_nan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.benchmark.group import Job
    from segdeploy.benchmark.plan import Entry, Group
    from segdeploy.data.table import Sample
    from segdeploy.evaluate import At
    from segdeploy.model.spec import ModelSpec

WORST = 5
"""Images of each entry that are shown."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a worker counted, and the folder of its label maps; `told` is its answer, see `labels.score`."""

    entry: Entry
    precision: str
    labels: Path
    told: dict[str, Any]

    @property
    def scores(self) -> Scores:
        """Over the whole table."""
        boundary = self.told["boundary"]
        return Scores(np.array(self.told["confusion"]), np.array(boundary) if boundary is not None else None)


def score_all(
    job: Job,
    entries: Mapping[Entry, dict[str, Any]],
    group: Group,
    table: Path,
    images: int,
    at: At,
    progress: Callable[[str, int, int], None],
) -> tuple[list[Scored], dict[str, str]]:
    """Score entries, each in a process of its own, at the model's own size.

    `entries` come with what the runners of their timed rows told: a process that runs on something else than they did
    says nothing of them.

    Torch comes first among `entries`; the labels of its first row that can be scored are those that others are
    compared with.

    Returns:
        what was scored, and by the names of the others why not.
    """
    scored: list[Scored] = []
    reasons: dict[str, str] = {}
    for number, entry in enumerate(entries):
        progress(f"scoring {entry.name}", number, len(entries))
        labels = job.folder / f"labels{number}"
        labels.mkdir()
        truth = reference_of(scored)
        try:
            with job.start(entry, group.threads, str(group)) as worker:
                opened = worker.ask("open", **(job.opening(entry, group) | {"size": None}))
                if why := differs(entries[entry], opened["runner"]):
                    reasons[entry.name] = why
                    continue
                told = worker.ask(
                    "score",
                    job.settings.timeout + 5 * images,
                    table=str(table),
                    at=at,
                    labels=str(labels),
                    reference=str(truth.labels) if truth else None,
                )
        except RowError as e:
            reasons[entry.name] = str(e)
            continue
        scored.append(Scored(entry, opened["runner"].get("precision", entry.precision), labels, told))
    progress("scoring", len(entries), len(entries))
    return scored, reasons


def reference_of(scored: Sequence[Scored]) -> Scored | None:
    """Torch's first row: what the others are held against."""
    return next((s for s in scored if s.entry.backend == "torch"), None)


def make_accuracy(scored: Sequence[Scored], samples: Sequence[Sample], spec: ModelSpec, shown: int) -> list[Accuracy]:
    """The scores of each entry, deltas against torch's; `shown` pictures of its worst images."""
    truth = reference_of(scored)
    return [_accuracy(item, truth, samples, spec, shown) for item in scored]


def _accuracy(item: Scored, truth: Scored | None, samples: Sequence[Sample], spec: ModelSpec, shown: int) -> Accuracy:
    scores = item.scores
    iou, accuracy, precision, boundary = scores.iou, scores.accuracy, scores.precision, scores.boundary_iou
    nothing = np.full(len(iou), np.nan)
    deltas = iou - truth.scores.iou if truth else nothing
    boundary_deltas = boundary - truth.scores.boundary_iou if truth else nothing
    agreement = item.told["image_agreement"] if truth else None
    return Accuracy(
        name=item.entry.name,
        backend=item.entry.backend,
        precision=item.precision,
        images=item.told["images"],
        mean_iou=none_if_nan(scores.mean_iou),
        pixel_accuracy=none_if_nan(scores.pixel_accuracy),
        mean_class_accuracy=none_if_nan(scores.mean_accuracy),
        miou_delta=_delta(truth.scores.iou, iou) if truth else None,
        boundary_iou=none_if_nan(scores.mean_boundary_iou),
        boundary_delta=_delta(truth.scores.boundary_iou, boundary) if truth else None,
        label_agreement=float(np.mean(agreement)) if agreement else None,
        worst=worst_pictures(
            samples, spec, item.labels, truth.labels if truth else None, item.told["image_iou"], agreement, shown
        ),
        per_class=tuple(
            ClassScore(
                name=name,
                iou=none_if_nan(iou[i]),
                accuracy=none_if_nan(accuracy[i]),
                precision=none_if_nan(precision[i]),
                pixels=int(scores.confusion[i].sum()),
                iou_delta=none_if_nan(deltas[i]),
                boundary_iou=none_if_nan(boundary[i]),
                boundary_delta=none_if_nan(boundary_deltas[i]),
            )
            for i, name in enumerate(spec.classes.names)
        ),
        absent_classes=tuple(n for n, v in zip(spec.classes.names, iou, strict=True) if np.isnan(v)),
        confusion=tuple(tuple(int(v) for v in line) for line in scores.confusion),
    )


def _delta(truth: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    return none_if_nan(0 - mean_drop(truth, found))  # from 0, for there is no -0.0 in it
