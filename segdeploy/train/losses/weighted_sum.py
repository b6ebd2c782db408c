"""Several losses at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segdeploy.train.losses.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class WeightedSum(Objective):
    """The sum of losses, each times its factor; its terms are theirs, one after the other."""

    factors: Tensor

    def __init__(self, losses: Iterable[Objective], factors: Sequence[float]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.register_buffer("factors", torch.tensor(factors), persistent=False)

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        sums, weights = zip(*(loss.parts(logits, target) for loss in self.losses), strict=True)  # type: ignore[operator]
        return torch.cat(sums), torch.cat(weights)

    def weights(self, target: Tensor) -> Tensor:
        """(K,): see `Objective`."""
        return torch.cat([loss.weights(target) for loss in self.losses])  # type: ignore[operator]

    def terms(self, sums: Tensor, weights: Tensor) -> Tensor:
        """See `Objective`."""
        return super().terms(sums, weights) * self.factors
