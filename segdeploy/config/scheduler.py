"""The learning rate over the run; in Ludwig's names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from segdeploy.config.bounds import Fraction, NonNegative
from segdeploy.frozen import Frozen

KEYS_OF: dict[str | None, tuple[str, ...]] = {
    None: (),
    "cosine": ("t_0", "t_mult", "eta_min"),
    "linear": (),
    "polynomial": ("polynomial_power", "polynomial_end_lr"),
    "exponential": ("decay_rate", "decay_steps", "staircase"),
    "inverse_sqrt": ("inverse_sqrt_warmup_steps",),
    "one_cycle": ("max_lr", "pct_start", "div_factor", "final_div_factor"),
    "wsd": ("wsd_warmup_fraction", "wsd_stable_fraction", "wsd_decay_fraction"),
}
"""The keys that each schedule alone reads."""
OWN_WARMUP = frozenset({"inverse_sqrt", "one_cycle", "wsd"})
"""Schedules that rise by keys of their own; `warmup_fraction` does nothing there."""


class Scheduler(Frozen):
    """The learning rate over the run: a line up, then a decay, and on top of that less of it where nothing improves."""

    decay: Literal["cosine", "linear", "polynomial", "exponential", "inverse_sqrt", "one_cycle", "wsd"] | None = (
        "cosine"
    )
    """cosine: one half-wave from `learning_rate` to `eta_min`, or one every `t_0` steps. linear: to 0. polynomial,
    exponential: see their keys. inverse_sqrt: Vaswani et al. 2017. one_cycle: Smith and Topin 2018, the rate
    alone. wsd: up, level and down again (Hu et al. 2024). null: constant."""
    warmup_fraction: Fraction = 0.05
    """Share of all steps over which the rate rises in a line from 0; inverse_sqrt, one_cycle and wsd rise by keys of
    their own."""
    t_0: PositiveInt | None = None
    """cosine: steps of the first half-wave, after which the rate starts anew; null: one half-wave over the run."""
    t_mult: PositiveInt = 1
    """cosine: how many times as long each half-wave is as the one before."""
    eta_min: NonNegative = 0.0
    """cosine: rate at the end of the half-wave."""
    polynomial_power: PositiveFloat = 1.0
    """polynomial: power of the share of steps that is left."""
    polynomial_end_lr: NonNegative = 0.0
    """polynomial: rate at the end."""
    decay_rate: Annotated[float, Field(gt=0, le=1)] = 0.96
    """exponential: factor of the rate per `decay_steps`."""
    decay_steps: PositiveInt = 10_000
    """exponential: steps over which the rate falls by `decay_rate`."""
    staircase: bool = False
    """exponential: whether it falls at the end of each `decay_steps` at once."""
    inverse_sqrt_warmup_steps: PositiveInt = 4000
    """inverse_sqrt: steps over which the rate rises in a line; from there it falls as 1 / sqrt(step)."""
    max_lr: PositiveFloat | None = None
    """one_cycle: the highest rate; null: `learning_rate`."""
    pct_start: Fraction = 0.3
    """one_cycle: share of the steps over which the rate rises."""
    div_factor: Annotated[float, Field(ge=1)] = 25.0
    """one_cycle: the first rate is the highest over this."""
    final_div_factor: Annotated[float, Field(ge=1)] = 1e4
    """one_cycle: the last rate is the first over this."""
    wsd_warmup_fraction: Fraction = 0.1
    """wsd: share of the steps over which the rate rises in a line."""
    wsd_stable_fraction: Fraction = 0.8
    """wsd: share of the steps at `learning_rate`."""
    wsd_decay_fraction: Fraction = 0.1
    """wsd: share of the steps over which the rate falls to 0, in half a cosine wave."""
    reduce_on_plateau: Annotated[int, Field(ge=0)] = 0
    """How often, at most, the rate is reduced where `reduce_eval_metric` no longer improves; 0: never."""
    reduce_on_plateau_patience: Annotated[int, Field(ge=0)] = 10
    """Epochs without an improvement that are waited for."""
    reduce_on_plateau_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor of the rate at each reduction."""
    reduce_eval_metric: Literal["loss", "mean_iou", "pixel_accuracy"] = "loss"
    """What is to improve, by a ten-thousandth of itself or more."""
    reduce_eval_split: Literal["training", "validation"] = "training"
    """The part on which it is looked at; the training part has a loss alone."""

    @model_validator(mode="after")
    def _agrees(self) -> Scheduler:
        shares = (self.wsd_warmup_fraction, self.wsd_stable_fraction, self.wsd_decay_fraction)
        if self.decay == "wsd" and abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"the three wsd fractions add up to {sum(shares):g}, expected 1")
        if self.reduce_on_plateau and self.reduce_eval_split == "training" and self.reduce_eval_metric != "loss":
            raise ValueError(
                f"training has no {self.reduce_eval_metric}; set reduce_eval_split: validation, or "
                "reduce_eval_metric: loss"
            )
        return self

    @property
    def end(self) -> float:
        """The rate at the end, where a key says it."""
        return {"cosine": self.eta_min, "polynomial": self.polynomial_end_lr}.get(self.decay or "", 0.0)
