"""Is what ships the same as what was trained? Labels and mean IoU of a runner against torch, on real images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image
from segdeploy.evaluate import evaluate
from segdeploy.metrics import mean_drop, none_if_nan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.config.export import Limits
    from segdeploy.data.table import Sample
    from segdeploy.evaluate import EvalResult, Example
    from segdeploy.metrics import Scores
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.runner import Runner


@dataclass(frozen=True, slots=True)
class Parity:
    """One comparison with torch.

    `target` is that of the file (see `bundle.Artifact`), whatever ran it here. `agreement` is the share of all pixels
    with the same class; `worst_agreement` that of the worst image, `worst_image` its name. `miou_drop` is torch's mean
    IoU less the runner's, see `metrics.mean_drop` (0.01 = one point).
    """

    backend: str
    precision: str
    target: str
    batch_size: int
    images: int
    agreement: float
    worst_agreement: float
    worst_image: str
    reference_miou: float
    miou: float
    miou_drop: float
    worst_class_drop: float
    worst_class: str
    passed: bool
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """Which file at which batch size."""
        return f"{self.precision}{f' for {self.target}' if self.target else ''}, batch {self.batch_size}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = asdict(self)
        for key in ("reference_miou", "miou", "miou_drop", "worst_class_drop"):
            values[key] = none_if_nan(values[key])
        values["reasons"] = list(self.reasons)
        return values


@dataclass(frozen=True, slots=True)
class AtSize:
    """The share of equal pixels at a size that is not the model's."""

    height: int
    width: int
    images: int
    agreement: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Truth:
    """What torch makes of the samples, kept to compare others with: height x width bytes an image."""

    samples: Sequence[Sample]
    spec: ModelSpec
    scores: Scores
    labels: Mapping[Path, NDArray[np.uint8]]


class Agreement:
    """Counts equal pixels against kept labels."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.per_image: dict[Path, float] = {}

    def add(self, example: Example, labels: NDArray[np.uint8]) -> None:
        """For `on_labels` of `evaluate`, with the runner under test."""
        self.per_image[example.sample.image] = float((labels == self.truth.labels[example.sample.image]).mean())

    @property
    def mean(self) -> float:
        """Share of equal pixels; all images have the same number."""
        return float(np.mean(list(self.per_image.values())))

    @property
    def worst(self) -> tuple[Path, float]:
        """The image with the smallest share, and the share."""
        return min(self.per_image.items(), key=lambda item: item[1])


def find_truth(
    reference: Runner,
    samples: Sequence[Sample],
    spec: ModelSpec,
    progress: Callable[[int, int], None] | None = None,
) -> Truth:
    """Run the reference over all samples, once."""
    labels: dict[Path, NDArray[np.uint8]] = {}

    def keep(example: Example, found: NDArray[np.uint8]) -> None:
        labels[example.sample.image] = found.copy()

    result = evaluate(reference, samples, spec, boundary=False, progress=progress, on_labels=keep)
    return Truth(samples, spec, result.scores, labels)


def verify(
    truth: Truth,
    candidate: Runner,
    limits: Limits,
    batch_size: int = 1,
    target: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Parity:
    """Compare at one batch size; a limit that is not kept is in the result, not raised.

    Args:
        truth: see `find_truth`.
        candidate: what is under test.
        limits: what it must keep.
        batch_size: images per call.
        target: that of the candidate's file, for the record.
        progress: called with (images done, images in all).
    """
    same = Agreement(truth)
    result = evaluate(
        candidate,
        truth.samples,
        truth.spec,
        batch_size=batch_size,
        boundary=False,
        progress=progress,
        on_labels=same.add,
    )
    return _judge(truth, result, same, batch_size, target, limits)


def compare_at(
    reference: Runner,
    candidate: Runner,
    samples: Sequence[Sample],
    spec: ModelSpec,
    size: tuple[int, int],
    limits: Limits,
) -> AtSize:
    """Compare the labels of `samples`, resized to `size` (height, width); there is no mean IoU, for they are few."""
    other = spec.preprocessing.model_copy(update={"height": size[0], "width": size[1]})
    images = np.stack([resize_image(read_image(s.image), other) for s in samples])
    share = float((reference.run(images) == candidate.run(images)).mean())
    return AtSize(*size, images=len(samples), agreement=share, passed=share >= limits.min_agreement)


def _judge(truth: Truth, result: EvalResult, same: Agreement, batch_size: int, target: str, limits: Limits) -> Parity:
    drops = np.nan_to_num(truth.scores.iou - result.scores.iou)
    worst_class = int(np.argmax(drops))
    drop = mean_drop(truth.scores.iou, result.scores.iou)
    worst_image, worst = same.worst
    reasons = []
    if drop > limits.max_miou_drop:
        reasons.append(f"mean IoU drops by {drop:.5f}, more than {limits.max_miou_drop}")
    if same.mean < limits.min_agreement:
        reasons.append(f"{same.mean:.5%} of the pixels agree, fewer than {limits.min_agreement:.3%}")
    if np.isnan(drop):
        reasons.append("the mean IoU is not a number; the table holds no labelled pixel")
    return Parity(
        backend=result.runner["backend"],
        precision=result.runner["precision"],
        target=target,
        batch_size=batch_size,
        images=result.images,
        agreement=same.mean,
        worst_agreement=worst,
        worst_image=worst_image.name,
        reference_miou=truth.scores.mean_iou,
        miou=result.scores.mean_iou,
        miou_drop=drop,
        worst_class_drop=float(drops[worst_class]),
        worst_class=truth.spec.classes.names[worst_class],
        passed=not reasons,
        reasons=tuple(reasons),
    )
