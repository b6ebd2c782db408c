"""Scores from pixel counts over the whole data set; the same code for every backend. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.classes import IGNORE, ClassMap

if TYPE_CHECKING:
    from numpy.typing import NDArray


_BLOCK = 1 << 18
"""Pixels at a time: what is kept of them stays in the cache of a core."""


def joint_histogram(target: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Count how often each pair of values meets.

    Label maps are flat, so runs of equal pairs are counted by their length; where runs are short, each pixel is.

    Args:
        target: class ids, any shape, uint8; 255 = ignore.
        predicted: class ids of the same shape, uint8; 255 = ignore.
        num_classes: C, at most 255.

    Returns:
        (C + 1, C + 1) int64, target by row: 255 in row and column 0, class i in i + 1.

    Raises:
        ValueError: shapes or types differ, or an id is neither below C nor 255.
    """
    _check_pair(target, predicted)
    size = num_classes + 1
    table = np.zeros(size * size, np.int64)
    target, predicted = target.ravel(), predicted.ravel()
    for start in range(0, target.size, _BLOCK):
        rows, columns = target[start : start + _BLOCK], predicted[start : start + _BLOCK]
        ends = rows[1:] != rows[:-1]
        ends |= columns[1:] != columns[:-1]
        lengths = None
        if np.count_nonzero(ends) < rows.size // 4:
            places = np.append(np.flatnonzero(ends), rows.size - 1)
            rows, columns, lengths = rows[places], columns[places], np.diff(places, prepend=-1)
        rows, columns = rows + np.uint8(1), columns + np.uint8(1)  # 255 becomes 0
        if max(rows.max(), columns.max()) > num_classes:
            raise ValueError(f"expected class ids below {num_classes}, or {IGNORE}")
        code = rows.astype(np.uint16)
        code *= np.uint16(size)
        code += columns
        table += np.bincount(code, lengths, table.size).astype(np.int64)  # lengths are summed as floats, exact to 2**53
    return table.reshape(size, size)


def confusion_matrix(target: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        target: class ids, any shape, uint8; 255 = ignore, left out, whatever is predicted there.
        predicted: class ids of the same shape, uint8.
        num_classes: C, at most 255.

    Returns:
        (C, C) int64.

    Raises:
        ValueError: shapes or types differ, or an id is not below C.
    """
    _check_pair(target, predicted)
    if predicted.max(initial=0) >= num_classes:
        predicted = np.where(target == IGNORE, np.uint8(IGNORE), predicted)
    table = joint_histogram(target, predicted, num_classes)
    if table[1:, 0].any():
        raise ValueError(f"expected class ids below {num_classes}, or {IGNORE} in the target")
    return table[1:, 1:]


def _check_pair(target: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
    if target.shape != predicted.shape or target.dtype != np.uint8 or predicted.dtype != np.uint8:
        raise ValueError(
            "expected two uint8 arrays of one shape, "
            f"got {target.dtype} {target.shape} and {predicted.dtype} {predicted.shape}"
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """What the counts say; classes absent from targets and predictions are NaN.

    `confusion` is (C, C), see `confusion_matrix`; `boundary` is (2, C), see `segdeploy.boundary`, or None where
    boundaries were not looked at, and then their scores are NaN.
    """

    confusion: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None

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
    def boundary_iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union of the pixels near a class's contours (Cheng et al. 2021)."""
        if self.boundary is None:
            return np.full(len(self.confusion), np.nan)
        return _divide(self.boundary[0], self.boundary[1])

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are not NaN."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the classes that are not NaN."""
        return _mean(self.accuracy)

    @property
    def mean_boundary_iou(self) -> float:
        """Mean of `boundary_iou` over the classes that are not NaN."""
        return _mean(self.boundary_iou)

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right; NaN without any."""
        total = int(self.confusion.sum())
        return int(np.trace(self.confusion)) / total if total else float("nan")

    def to_dict(self, classes: ClassMap) -> dict[str, Any]:
        """JSON-ready, NaN as None: the means, each class, the classes that were left out of the means.

        `accuracy` is another name for `pixel_accuracy`; of one class, `recall` is another for `accuracy`.
        """
        iou, accuracy, precision, boundary = self.iou, self.accuracy, self.precision, self.boundary_iou
        support = self.confusion.sum(1)
        return {
            "mean_iou": none_if_nan(self.mean_iou),
            "pixel_accuracy": none_if_nan(self.pixel_accuracy),
            "accuracy": none_if_nan(self.pixel_accuracy),
            "mean_class_accuracy": none_if_nan(self.mean_accuracy),
            "boundary_iou": none_if_nan(self.mean_boundary_iou),
            "per_class_stats": {
                name: {
                    "iou": none_if_nan(iou[i]),
                    "accuracy": none_if_nan(accuracy[i]),
                    "precision": none_if_nan(precision[i]),
                    "recall": none_if_nan(accuracy[i]),
                    "support": int(support[i]),
                    "boundary_iou": none_if_nan(boundary[i]),
                }
                for i, name in enumerate(classes.names)
            },
            "absent_classes": [name for i, name in enumerate(classes.names) if np.isnan(iou[i])],
            "confusion_matrix": self.confusion.tolist(),
        }


def mean_drop(truth: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """How far a mean score lies below another; both are taken over the classes that `truth` has.

    One stray pixel of a class that is nowhere gives that class an IoU of 0. Where it were in one mean and not in the
    other, it would look like a drop, or hide one.

    Args:
        truth: scores by class (C,), such as `Scores.iou` or `Scores.boundary_iou`; NaN where there is none.
        found: the same of what is held against it; NaN counts as 0 where `truth` has a score.

    Returns:
        0.01 = one point lower, negative = higher; NaN where `truth` has no class.
    """
    known = ~np.isnan(truth)
    return float((truth[known] - np.nan_to_num(found[known])).mean()) if known.any() else float("nan")


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
