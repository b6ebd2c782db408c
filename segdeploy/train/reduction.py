"""A loss as a mean, and as a sum with its weight, of which means over several batches and processes are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn


def mean_of(loss: nn.CrossEntropyLoss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of logits (N, C, H, W) float32 and target (N, H, W) int64, and 1; 0 where no pixel is labelled."""
    value = loss(logits, target)
    return torch.where((target != loss.ignore_index).any(), value, value.new_zeros(())), value.new_ones(())


def sum_and_weight(loss: nn.CrossEntropyLoss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over labelled pixels, and their weight: `mean_of` of many batches is the sums' sum over the weights'."""
    labelled = target != loss.ignore_index
    total = F.cross_entropy(
        logits, target, loss.weight, ignore_index=loss.ignore_index, reduction="sum", label_smoothing=loss.label_smoothing
    )
    if loss.weight is None:
        return total, labelled.sum().float()
    return total, loss.weight[target.where(labelled, 0)].mul(labelled).sum()
