"""Is what ships the same as what was trained? Labels and mean IoU of a runner against torch, on real images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image
from segdeploy.evaluate import evaluate
from segdeploy.metrics import none_if_nan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.config.export import Export
    from segdeploy.data.table import Sample
    from segdeploy.evaluate import EvalResult, Example
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.runner import Runner


@dataclass(frozen=True, slots=True)
class Parity:
    """One comparison with torch.

    `agreement` is the share of all pixels with the same class; `worst_agreement` that of the worst image,
    `worst_image` its name. `miou_drop` is torch's mean IoU less the runner's (0.01 = one point).
    """

    backend: str
    precision: str
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


class Labels:
    """The reference's labels by image, kept to compare others with: height x width bytes an image."""

    def __init__(self) -> None:
        self._labels: dict[Path, NDArray[np.uint8]] = {}

    def keep(self, example: Example, labels: NDArray[np.uint8]) -> None:
        """For `on_labels` of `evaluate`, with the reference."""
        self._labels[example.sample.image] = labels.copy()

    def __getitem__(self, image: Path) -> NDArray[np.uint8]:
        return self._labels[image]


class Agreement:
    """Counts equal pixels against kept labels."""

    def __init__(self, reference: Labels) -> None:
        self.reference = reference
        self.per_image: dict[Path, float] = {}

    def add(self, example: Example, labels: NDArray[np.uint8]) -> None:
        """For `on_labels` of `evaluate`, with the runner under test."""
        self.per_image[example.sample.image] = float((labels == self.reference[example.sample.image]).mean())

    @property
    def mean(self) -> float:
        """Share of equal pixels; all images have the same number."""
        return float(np.mean(list(self.per_image.values())))

    @property
    def worst(self) -> tuple[Path, float]:
        """The image with the smallest share, and the share."""
        return min(self.per_image.items(), key=lambda item: item[1])


def verify(
    reference: Runner,
    candidate: Runner,
    samples: Sequence[Sample],
    spec: ModelSpec,
    limits: Export,
    progress: Callable[[int, int], None] | None = None,
) -> list[Parity]:
    """Compare at every batch size of `limits.verify_batches`; failed comparisons are in the result, not raised."""
    kept = Labels()
    batches = limits.verify_batches
    total = len(samples) * (len(batches) + 1)
    done = 0

    def advance(at: int, _: int) -> None:
        if progress is not None:
            progress(done + at, total)

    truth = evaluate(reference, samples, spec, batch_size=1, boundary=False, progress=advance, on_labels=kept.keep)
    records = []
    for size in batches:
        done += len(samples)
        same = Agreement(kept)
        result = evaluate(
            candidate, samples, spec, batch_size=size, boundary=False, progress=advance, on_labels=same.add
        )
        records.append(_judge(truth, result, same, size, spec, limits))
    return records


def compare_at(
    reference: Runner,
    candidate: Runner,
    samples: Sequence[Sample],
    spec: ModelSpec,
    size: tuple[int, int],
    limits: Export,
) -> AtSize:
    """Compare the labels of `samples`, resized to `size` (height, width); there is no mean IoU, for they are few."""
    other = spec.preprocessing.model_copy(update={"height": size[0], "width": size[1]})
    images = np.stack([resize_image(read_image(s.image), other) for s in samples])
    share = float((reference.run(images) == candidate.run(images)).mean())
    return AtSize(*size, images=len(samples), agreement=share, passed=share >= limits.min_agreement)


def _judge(
    truth: EvalResult, result: EvalResult, same: Agreement, size: int, spec: ModelSpec, limits: Export
) -> Parity:
    drops = np.nan_to_num(truth.scores.iou - result.scores.iou)
    worst_class = int(np.argmax(drops))
    # Both means over the classes that torch's has: one stray pixel of an absent class is no five-point drop.
    known = ~np.isnan(truth.scores.iou)
    drop = truth.scores.mean_iou - float(np.nan_to_num(result.scores.iou[known]).mean()) if known.any() else np.nan
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
        batch_size=size,
        images=result.images,
        agreement=same.mean,
        worst_agreement=worst,
        worst_image=worst_image.name,
        reference_miou=truth.scores.mean_iou,
        miou=result.scores.mean_iou,
        miou_drop=drop,
        worst_class_drop=float(drops[worst_class]),
        worst_class=spec.classes.names[worst_class],
        passed=not reasons,
        reasons=tuple(reasons),
    )
