"""The update rule and the learning rate over the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from segdeploy.config.schema import Scheduler, Trainer


def build_optimizer(model: nn.Module, config: Trainer) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; one-dimensional ones (norms, biases) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.optimizer.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=config.learning_rate,
        betas=config.optimizer.betas,
        eps=config.optimizer.eps,
        fused=True,  # one kernel for all parameters, on the CPU too
    )


def learning_rate(step: int, total: int, peak: float, config: Scheduler) -> float:
    """The rate of step `step` (from 0) out of `total`: a line up from 0, then half a cosine down to `eta_min`.

    Loshchilov and Hutter 2017 (https://arxiv.org/abs/1608.03983) without restarts.
    """
    warmup = round(total * config.warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.decay is None:
        return peak
    progress = (step - warmup) / max(1, total - warmup)
    return config.eta_min + (peak - config.eta_min) * 0.5 * (1 + math.cos(math.pi * progress))
