"""Boundary loss (Bokhovkin and Burnaev 2019, https://arxiv.org/abs/1905.07852)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.train.losses.objective import ImageObjective, one_hot

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-7


class Boundary(ImageObjective):
    """1 - F1 of the contours of each class that has one in an image, mean over these classes (equations 2 to 8).

    A pixel is on its class's contour if another class is in the window of side `theta0` about it. Contours of truth
    and prediction match where one is in the window of side `theta` about the other. The border of the image and that
    of an ignored region are no contour.
    """

    def __init__(self, class_weights: Tensor | None = None, theta0: int = 3, theta: int = 5) -> None:
        super().__init__(class_weights)
        self.theta0, self.theta = theta0, theta

    def images(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ImageObjective`."""
        labelled = (labels != IGNORE)[:, None]
        truth = one_hot(labels, logits.shape[1]) & self.counts(labels)[:, None]
        others = (1 - logits.softmax(1)) * labelled
        found = (_largest(others, self.theta0) - others) * labelled
        length, found_length = truth.sum((2, 3)), found.sum((2, 3))
        precision = (found * _near(truth, self.theta)).sum((2, 3)) / (found_length + _EPSILON)
        recall = (truth * _largest(found, self.theta)).sum((2, 3)) / (length + _EPSILON)
        score = 2 * precision * recall / (precision + recall + _EPSILON)
        return self.over_classes(1 - score, length > 0)

    def counts(self, labels: Tensor) -> Tensor:
        """(N, H, W) bool: the pixels on a contour."""
        ids = labels.float()
        ignored = labels == IGNORE
        above = _largest(ids.masked_fill(ignored, -1), self.theta0)
        below = -_largest(-ids, self.theta0)  # 255, ignored, is never below
        return ~ignored & ((above != ids) | (below != ids))


def _largest(maps: Tensor, side: int) -> Tensor:
    """The largest value in the window of odd `side` about each pixel (..., H, W); nothing lies outside the image."""
    return F.max_pool2d(maps, side, 1, side // 2)


def _near(flags: Tensor, side: int) -> Tensor:
    """Whether any flag (N, C, H, W) is set in that window; several times as fast as `_largest` on a CPU."""
    for dim, padding in ((3, (side // 2, side // 2)), (2, (0, 0, side // 2, side // 2))):
        flags = F.pad(flags, padding).unfold(dim, side, 1).any(-1)
    return flags
