"""The learning rate over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from segdeploy.config.scheduler import Scheduler


def learning_rate(step: int, total: int, peak: float, config: Scheduler) -> float:
    """The rate of step `step` (from 0) out of `total`; a pure function of them, whatever has run before.

    A line up from 0 over `warmup_fraction` of the steps, then the configured decay over the others. inverse_sqrt,
    one_cycle and wsd have a rise of their own instead. Papers: warm restarts, Loshchilov and Hutter 2017
    (https://arxiv.org/abs/1608.03983); inverse_sqrt, Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762);
    one_cycle, Smith and Topin 2018 (https://arxiv.org/abs/1708.07120); wsd, Hu et al. 2024
    (https://arxiv.org/abs/2404.06395).
    """
    match config.decay:
        case "inverse_sqrt":
            warmup = config.inverse_sqrt_warmup_steps
            return peak * min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))
        case "one_cycle":
            return _one_cycle(step, total, config.max_lr or peak, config)
        case "wsd":
            warmup = round(total * config.wsd_warmup_fraction)
            level = round(total * (1 - config.wsd_decay_fraction))
            if step >= warmup:
                return peak * _wave(max(0, step - level) / max(1, total - level))
            return peak * (step + 1) / warmup
    warmup = round(total * config.warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    return _decayed(step - warmup, max(1, total - warmup), peak, config)


def _decayed(into: int, length: int, peak: float, config: Scheduler) -> float:
    """The rate `into` steps behind the rise, out of `length`."""
    left = max(0.0, 1 - into / length)
    match config.decay:
        case "cosine":
            length = config.t_0 or length
            while into >= length:
                into, length = into - length, length * config.t_mult
            return config.eta_min + (peak - config.eta_min) * _wave(into / length)
        case "linear":
            return peak * left
        case "polynomial":
            end = config.polynomial_end_lr
            return end + (peak - end) * math.pow(left, config.polynomial_power)
        case "exponential":
            times = into // config.decay_steps if config.staircase else into / config.decay_steps
            return peak * math.pow(config.decay_rate, times)
    return peak


def _one_cycle(step: int, total: int, highest: float, config: Scheduler) -> float:
    """As torch's OneCycleLR with a cosine: up to the highest rate, then down to a fraction of the first."""
    first = highest / config.div_factor
    last = first / config.final_div_factor
    top = total * config.pct_start - 1
    if step <= top:
        return highest + (first - highest) * _wave(step / top if top > 0 else 1.0)
    return last + (highest - last) * _wave(min(1.0, (step - top) / max(1e-9, total - 1 - top)))


def _wave(share: float) -> float:
    """Half a cosine wave: 1 at 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * share))


@dataclass(slots=True)
class Plateau:
    """Reduces the rate where a number no longer improves: torch's ReduceLROnPlateau, at most `limit` times.

    All fields are numbers, words or None, so that `dataclasses.asdict` is JSON, and `Plateau(**it)` goes on.
    """

    limit: int
    """Reductions, at most."""
    patience: int
    """Observations without an improvement that are waited for."""
    rate: float
    """Factor of each reduction."""
    rises: bool
    """Whether a larger number is the better one."""
    best: float | None = None
    """The best number so far."""
    waited: int = 0
    """Observations since then, or since the last reduction."""
    reductions: int = 0
    """How often the rate has been reduced."""

    @classmethod
    def of(cls, config: Scheduler) -> Self:
        """The beginning of a run."""
        return cls(
            limit=config.reduce_on_plateau,
            patience=config.reduce_on_plateau_patience,
            rate=config.reduce_on_plateau_rate,
            rises=config.reduce_eval_metric != "loss",
        )

    @property
    def factor(self) -> float:
        """What the schedule's rate is multiplied by."""
        return math.pow(self.rate, self.reductions)

    def observe(self, value: float) -> None:
        """Take note of one more value; NaN is no improvement."""
        if self.reductions >= self.limit:
            return
        if self._improves(value):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.reductions, self.waited = self.reductions + 1, 0

    def _improves(self, value: float) -> bool:
        """By a ten-thousandth of the best, torch's default; anything is better than nothing."""
        if self.best is None:
            return not math.isnan(value)
        return value > self.best * (1 + 1e-4) if self.rises else value < self.best * (1 - 1e-4)
