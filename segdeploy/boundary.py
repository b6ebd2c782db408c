"""Boundary IoU (Cheng et al. 2021, https://arxiv.org/abs/2103.16562) of all classes at once. NumPy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.classes import IGNORE
from segdeploy.metrics import joint_histogram

if TYPE_CHECKING:
    from numpy.typing import NDArray


def boundary_counts(
    target: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int, distance: int | None = None
) -> NDArray[np.int64]:
    """Count the pixels near a contour of their class, in both maps and in either.

    Boundary IoU is the first row over the second, each summed over the images. Pixels that the target ignores are
    made 255 in the prediction too before contours are drawn: both maps have the same contour there, and what was
    predicted inside is counted nowhere.

    Args:
        target: class ids (H, W) uint8; 255 = ignore.
        predicted: class ids (H, W) uint8.
        num_classes: C, at most 255.
        distance: how far from a contour, in pixels, at least 1; by default as `boundary_distance` says.

    Returns:
        (2, C) int64: intersection and union of the two bands of each class.

    Raises:
        ValueError: shapes or types differ, or an id is not below C.
    """
    ignored = target == IGNORE
    if ignored.any():
        predicted = predicted.copy()
        np.putmask(predicted, ignored, IGNORE)
    distance = boundary_distance(*target.shape) if distance is None else distance
    # Each class that a map holds has a pixel in its band, so a stray id cannot hide.
    table = joint_histogram(boundary_band(target, distance), boundary_band(predicted, distance), num_classes)
    both = np.diag(table)
    return np.stack([both, table.sum(1) + table.sum(0) - both])[:, 1:]


def boundary_distance(height: int, width: int) -> int:
    """2 % of the diagonal, rounded, at least one pixel: the authors' choice for natural images."""
    return max(1, round(0.02 * math.hypot(height, width)))


def boundary_band(labels: NDArray[np.uint8], distance: int) -> NDArray[np.uint8]:
    """Labels (H, W) of the pixels at most `distance` from a contour; 255 elsewhere.

    What lies outside the picture is another class. A pixel is off the band, then, if the box of side
    2 * distance + 1 about it lies in the picture and holds one label: if none of the 2 * distance squared blocks
    of 2 x 2 pixels in that box holds two.
    """
    height, width = labels.shape
    band = labels.copy()
    if min(height, width) <= 2 * distance:
        return band
    across = labels[:, 1:] != labels[:, :-1]
    mixed = across[1:] | across[:-1]
    mixed |= labels[1:, 1:] != labels[:-1, 1:]
    near = _any_of(_any_of(mixed, 2 * distance).T, 2 * distance).T
    inner = band[distance : height - distance, distance : width - distance]
    inner |= near.view(np.uint8) - np.uint8(1)  # 255 where nothing is near, else 0
    return band


def _any_of(flags: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Whether any of `length` rows from each on is set: (N, W) to (N - length + 1, W), in log2(length) steps."""
    seen = 1
    while seen < length:
        more = min(seen, length - seen)
        flags = flags[more:] | flags[:-more]
        seen += more
    return flags
