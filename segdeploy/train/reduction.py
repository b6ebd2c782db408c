"""A loss as sums and the weights that they are divided by, of which means over batches and processes are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn


class Parts:
    """Cross-entropy of logits (N, C, H, W) float32 and target (N, H, W) int64, as parts that add up."""

    def __init__(self, loss: nn.CrossEntropyLoss) -> None:
        self.loss = loss

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The sum (1,) over labelled pixels, and their weight (1,)."""
        loss = self.loss
        total = F.cross_entropy(
            logits,
            target,
            loss.weight,
            ignore_index=loss.ignore_index,
            reduction="sum",
            label_smoothing=loss.label_smoothing,
        )
        return total[None], self.weights(target)

    def weights(self, target: Tensor) -> Tensor:
        """(1,): the weight of all labelled pixels; known from the labels alone."""
        labelled = target != self.loss.ignore_index
        if self.loss.weight is None:
            return labelled.sum().float()[None]
        return self.loss.weight[target.where(labelled, 0)].mul(labelled).sum()[None]

    def mean(self, sums: Tensor, weights: Tensor) -> Tensor:
        """The loss that sums and weights stand for; 0 where nothing counts."""
        return (sums / torch.where(weights > 0, weights, 1)).sum()
