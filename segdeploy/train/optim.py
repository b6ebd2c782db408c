"""The update rule and the learning rate over the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from segdeploy.config.trainer import Scheduler, Trainer


def build_optimizer(model: nn.Module, config: Trainer) -> torch.optim.Optimizer:
    """The configured rule over all trainable parameters; one-dimensional ones (norms, biases) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    rule = config.optimizer
    decay = (0.01 if rule.type == "adamw" else 0.0) if rule.weight_decay is None else rule.weight_decay
    split = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in split if g["params"]]
    # Fused: one kernel for all parameters, on the CPU too.
    if rule.type == "sgd":
        return torch.optim.SGD(
            groups, lr=config.peak_learning_rate, momentum=rule.momentum, nesterov=rule.nesterov, fused=True
        )
    adam = torch.optim.AdamW if rule.type == "adamw" else torch.optim.Adam
    return adam(groups, lr=config.peak_learning_rate, betas=rule.betas, eps=rule.eps, fused=True)


def learning_rate(step: int, total: int, peak: float, config: Scheduler) -> float:
    """The rate of step `step` (from 0) out of `total`: a line up from 0, then cosine half-waves down to `eta_min`.

    One half-wave over the run, or with `t_0` warm restarts: t_0 steps, then each `t_mult` times as long as the one
    before (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983).
    """
    warmup = round(total * config.warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.decay is None:
        return peak
    into, length = step - warmup, config.t_0 or max(1, total - warmup)
    while into >= length:
        into, length = into - length, length * config.t_mult
    return config.eta_min + (peak - config.eta_min) * 0.5 * (1 + math.cos(math.pi * into / length))
