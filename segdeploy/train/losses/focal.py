"""Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.train.losses.objective import PixelObjective

if TYPE_CHECKING:
    from torch import Tensor

_SURE = 1e-12
"""Smallest 1 - p: the slope of its power is infinite at 0 where gamma is below 1."""


class Focal(PixelObjective):
    """Cross-entropy times (1 - p) ** gamma, p being the probability of the pixel's own class.

    The class weights are the paper's alpha.
    """

    def __init__(self, class_weights: Tensor | None = None, gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = gamma

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        labels = self.labels(target)
        plain = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")  # 0 where ignored
        losses = (-torch.expm1(-plain)).clamp_min(_SURE) ** self.gamma * plain
        if self.pixel_weights is not None:
            losses = losses * self.pixel_weights[labels]
        return losses.sum()[None], self.weights(labels)
