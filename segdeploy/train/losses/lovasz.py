"""Lovasz-softmax (Berman et al. 2018, https://arxiv.org/abs/1705.08790)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segdeploy.classes import IGNORE
from segdeploy.train.losses.objective import ImageObjective, one_hot

if TYPE_CHECKING:
    from torch import Tensor


class Lovasz(ImageObjective):
    """The convex surrogate of 1 - IoU of each class that an image has, mean over these classes."""

    def images(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ImageObjective`."""
        truth = one_hot(labels, logits.shape[1]).flatten(2)
        errors = (logits.softmax(1).flatten(2) - truth.float()).abs()
        # Ignored pixels are no error, come last, and so change nothing before them.
        errors = errors * (labels != IGNORE).flatten(1)[:, None]
        errors, order = errors.sort(dim=2, descending=True)
        values = (errors * _slope(truth.gather(2, order).float())).sum(2)
        return self.over_classes(values, truth.any(2))


def _slope(truth: Tensor) -> Tensor:
    """How much 1 - IoU grows with each further wrong pixel (..., P), in the order of their errors (algorithm 1)."""
    area = truth.sum(-1, keepdim=True)
    loss = 1 - (area - truth.cumsum(-1)) / (area + (1 - truth).cumsum(-1))
    return torch.cat([loss[..., :1], loss[..., 1:] - loss[..., :-1]], -1)
