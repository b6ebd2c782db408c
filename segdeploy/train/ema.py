"""Exponential moving average of the weights (Polyak and Juditsky 1992): smoother, and usually better, than the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """An average of parameters and buffers that `update_parameters(model)` moves by 1 - decay.

    The first steps move it faster, (1 + n) / (10 + n) as in TensorFlow's moving averages, so that the
    random start is soon forgotten.
    """

    @torch.no_grad()
    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(counter())
        weight = 1 - min(decay, (1 + n) / (10 + n))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), weight)
            else:
                mean.copy_(value)

    averaged_model = AveragedModel(model, multi_avg_fn=average, use_buffers=True)

    def counter() -> Tensor:
        return averaged_model.n_averaged  # on the CPU, so that reading it does not wait for the device

    return averaged_model
