"""Cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.train.losses.objective import PixelObjective

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(PixelObjective):
    """`torch.nn.CrossEntropyLoss`, with `label_smoothing` (Szegedy et al. 2016) from 0 to below 1."""

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        labels = self.labels(target)
        total = F.cross_entropy(
            logits,
            labels,
            self.class_weights,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return total[None], self.weights(labels)
