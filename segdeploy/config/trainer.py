"""The configuration's `trainer` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from segdeploy.config.bounds import Pattern
from segdeploy.config.optimizer import GradientClipping, Optimizer
from segdeploy.config.scheduler import Scheduler
from segdeploy.frozen import Frozen


class Trainer(Frozen):
    """How to train."""

    epochs: PositiveInt = 100
    """Passes over the training set."""
    batch_size: PositiveInt = 8
    """Samples per step."""
    eval_batch_size: PositiveInt | None = None
    """Samples per step of validation; null: batch_size."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    learning_rate_scheduler: Scheduler = Scheduler()
    """The learning rate over the run."""
    optimizer: Optimizer = Optimizer()
    """The update rule."""
    gradient_clipping: GradientClipping = GradientClipping()
    """Limits on the gradient."""
    early_stop: Annotated[int, Field(ge=-1)] = -1
    """Stop after this many epochs without a better validation score; -1 or 0: never."""
    layers_to_freeze_regex: Pattern | Annotated[tuple[Pattern, ...], Field(min_length=1)] | None = None
    """A regular expression, or several: parameters in whose names one is found keep their values, and the norms among
    them their statistics. Names are those of the weights file, such as encoder.body.layer1.0.conv1.weight."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep a moving average of the weights; each step it keeps this share of itself. null: none."""
    use_mixed_precision: bool = False
    """FP16 autocast with loss scaling on CUDA; on a CPU training stays in FP32."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seed of weights, order and augmentation."""

    @property
    def frozen_patterns(self) -> tuple[str, ...]:
        """`layers_to_freeze_regex` as a list."""
        patterns = self.layers_to_freeze_regex
        return (patterns,) if isinstance(patterns, str) else patterns or ()

    @model_validator(mode="after")
    def _falls(self) -> Trainer:
        schedule = self.learning_rate_scheduler
        if schedule.end > self.learning_rate:
            key = "eta_min" if schedule.decay == "cosine" else "polynomial_end_lr"
            raise ValueError(
                f"learning_rate_scheduler.{key} {schedule.end:g} is above learning_rate {self.learning_rate:g}"
            )
        return self
