"""Online hard example mining (Shrivastava et al. 2016, https://arxiv.org/abs/1604.03540), pixel by pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.train.losses.objective import ImageObjective

if TYPE_CHECKING:
    from torch import Tensor


class Ohem(ImageObjective):
    """Cross-entropy, mean over the hardest pixels of each image.

    They are those whose own class has a probability below `threshold`, and the `min_kept` of the smallest probability.
    """

    def __init__(self, class_weights: Tensor | None = None, threshold: float = 0.7, min_kept: int = 10_000) -> None:
        super().__init__(class_weights)
        self.threshold, self.min_kept = threshold, min_kept

    def images(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `ImageObjective`."""
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten(1)
        ids = labels.flatten(1)
        with torch.no_grad():
            labelled = ids != IGNORE
            probability = torch.exp(-losses)  # 1 where ignored, behind all others
            place = (labelled.sum(1, keepdim=True) - 1).clamp(0, self.min_kept - 1)
            kept = probability <= probability.sort(1).values.gather(1, place)
            weights = ((kept | (probability < self.threshold)) & labelled).float()
            if self.pixel_weights is not None:
                weights *= self.pixel_weights[ids]
            total = weights.sum(1)
        return (losses * weights).sum(1) / torch.where(total > 0, total, 1)
