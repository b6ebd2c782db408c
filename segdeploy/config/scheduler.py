"""The learning rate over the run."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from segdeploy.config.bounds import Fraction, NonNegative
from segdeploy.frozen import Frozen


class Scheduler(Frozen):
    """The learning rate over the run."""

    decay: Literal["cosine"] | None = "cosine"
    """cosine: one half-wave from `learning_rate` to `eta_min`, or one every `t_0` steps. null: constant."""
    t_0: PositiveInt | None = None
    """Steps of the first half-wave, after which the rate starts anew; null: one half-wave over the whole run."""
    t_mult: PositiveInt = 1
    """How many times as long each half-wave is as the one before."""
    warmup_fraction: Fraction = 0.05
    """Share of all steps over which the rate rises in a line from 0."""
    eta_min: NonNegative = 0.0
    """Rate at the end of the half-wave."""
