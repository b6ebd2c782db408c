"""Scores from one confusion matrix over the whole data set; the same code for every backend. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.classes import IGNORE, ClassMap

if TYPE_CHECKING:
    from numpy.typing import NDArray


def confusion_matrix(target: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        target: class ids, any shape, uint8; 255 = ignore, left out.
        predicted: class ids of the same shape, uint8.
        num_classes: C, at most 255.

    Returns:
        (C, C) int64.

    Raises:
        ValueError: shapes or types differ, or an id is not below C.
    """
    if target.shape != predicted.shape or target.dtype != np.uint8 or predicted.dtype != np.uint8:
        raise ValueError(
            "expected two uint8 arrays of one shape, "
            f"got {target.dtype} {target.shape} and {predicted.dtype} {predicted.shape}"
        )
    # One uint16 code a pixel, one bincount: uint8 is never widened to int64 for masking or indexing.
    code = target.astype(np.uint16) << 8
    code |= predicted
    table = np.bincount(code.ravel(), minlength=65536).reshape(256, 256)
    inside = table[:num_classes, :num_classes]
    if inside.sum() + table[IGNORE].sum() != target.size:
        raise ValueError(f"expected class ids below {num_classes}, or {IGNORE} in the target")
    return inside.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a confusion matrix (C, C) says; classes absent from targets and predictions are NaN."""

    confusion: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union; NaN where a class is in neither targets nor predictions."""
        hit = np.diag(self.confusion)
        return _divide(hit, self.confusion.sum(0) + self.confusion.sum(1) - hit)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(C,) share of a class's pixels that were found (recall); NaN where it has none."""
        return _divide(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """(C,) share of the pixels given to a class that are its own; NaN where there are none."""
        return _divide(np.diag(self.confusion), self.confusion.sum(0))

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are not NaN."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the classes that are not NaN."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right; NaN without any."""
        total = int(self.confusion.sum())
        return int(np.trace(self.confusion)) / total if total else float("nan")

    def to_dict(self, classes: ClassMap) -> dict[str, Any]:
        """JSON-ready: Ludwig's names, NaN as None, and the classes that were left out of the mean."""
        iou, accuracy, precision = self.iou, self.accuracy, self.precision
        support = self.confusion.sum(1)
        return {
            "mean_iou": none_if_nan(self.mean_iou),
            "pixel_accuracy": none_if_nan(self.pixel_accuracy),
            "mean_class_accuracy": none_if_nan(self.mean_accuracy),
            "per_class_stats": {
                name: {
                    "iou": none_if_nan(iou[i]),
                    "accuracy": none_if_nan(accuracy[i]),
                    "precision": none_if_nan(precision[i]),
                    "support": int(support[i]),
                }
                for i, name in enumerate(classes.names)
            },
            "absent_classes": [name for i, name in enumerate(classes.names) if np.isnan(iou[i])],
            "confusion_matrix": self.confusion.tolist(),
        }


def none_if_nan(value: float) -> float | None:
    """A float for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)


def _divide(top: NDArray[np.int64], bottom: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: NDArray[np.float64] = np.where(bottom > 0, np.true_divide(top, bottom), np.nan)
    return ratio


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
