"""Soft Dice loss (Milletari et al. 2016, https://arxiv.org/abs/1606.04797, with sums for their squares)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.classes import IGNORE
from segdeploy.train.losses.objective import ImageObjective, one_hot

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-7


class Dice(ImageObjective):
    """1 - (2 |P T| + smooth) / (|P| + |T| + smooth) for each class that an image has, mean over these classes."""

    def __init__(self, class_weights: Tensor | None = None, smooth: float = 1.0) -> None:
        super().__init__(class_weights)
        self.smooth = smooth

    def images(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ImageObjective`."""
        truth = one_hot(labels, logits.shape[1])
        found = logits.softmax(1) * (labels != IGNORE)[:, None]
        both, area = (found * truth).sum((2, 3)), truth.sum((2, 3))
        score = (2 * both + self.smooth) / (found.sum((2, 3)) + area + self.smooth).clamp_min(_EPSILON)
        return self.over_classes(1 - score, area > 0)
