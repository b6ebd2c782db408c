"""The configuration's `trainer` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from segdeploy.config.bounds import Fraction, NonNegative
from segdeploy.frozen import Frozen

Decay = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Frozen):
    """The update rule; norms and biases are never decayed."""

    type: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw: Loshchilov and Hutter 2019. adam: Kingma and Ba 2015. sgd: gradient descent with momentum."""
    weight_decay: NonNegative | None = None
    """Weight decay; decoupled in adamw. null: 0.01 for adamw, 0 for the others."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the running mean and of the running square of the gradient."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the running square."""
    momentum: Decay = 0.0
    """Share of the last step that sgd keeps."""
    nesterov: bool = False
    """Whether sgd looks ahead along its momentum."""

    @model_validator(mode="after")
    def _momentum(self) -> Optimizer:
        if self.type != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd; {self.type} has betas[0]")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


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


class GradientClipping(Frozen):
    """Limits on the gradient."""

    clipglobalnorm: PositiveFloat | None = 1.0
    """Largest L2 norm over all gradients together; null: no limit."""


class Trainer(Frozen):
    """How to train."""

    epochs: PositiveInt = 100
    """Passes over the training set."""
    batch_size: PositiveInt | Literal["auto"] = 8
    """Samples per step; auto: as many as fit into memory and still make training faster, at most a fifth of them."""
    max_batch_size: PositiveInt = 1 << 40
    """What `batch_size: auto` chooses at most; a number is taken as it is."""
    eval_batch_size: PositiveInt | None = None
    """Samples per step of validation; null: batch_size."""
    learning_rate: PositiveFloat | Literal["auto"] = 1e-3
    """Peak learning rate; auto: by optimiser, batch size and whether the encoder is pretrained."""
    learning_rate_scheduler: Scheduler = Scheduler()
    """The learning rate over the run."""
    optimizer: Optimizer = Optimizer()
    """The update rule."""
    gradient_clipping: GradientClipping = GradientClipping()
    """Limits on the gradient."""
    early_stop: Annotated[int, Field(ge=-1)] = -1
    """Stop after this many epochs without a better validation score; -1 or 0: never."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep a moving average of the weights; each step it keeps this share of itself. null: none."""
    use_mixed_precision: bool = False
    """FP16 autocast with loss scaling on CUDA; on a CPU training stays in FP32."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seed of weights, order and augmentation."""
    trackers: tuple[str, ...] = ()
    """Plugins that hear each epoch's numbers, such as mlflow (segdeploy-mlflow)."""

    @property
    def samples_per_step(self) -> int:
        """`batch_size`, once `segdeploy.train.auto` has settled it."""
        if self.batch_size == "auto":
            raise ValueError("batch_size: auto is settled when training begins")
        return self.batch_size

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, once `segdeploy.train.auto` has settled it."""
        if self.learning_rate == "auto":
            raise ValueError("learning_rate: auto is settled when training begins")
        return self.learning_rate

    @model_validator(mode="after")
    def _falls(self) -> Trainer:
        if self.learning_rate == "auto":
            return self  # `segdeploy.train.auto` looks at it then
        if self.learning_rate_scheduler.eta_min > self.learning_rate:
            raise ValueError(
                f"learning_rate_scheduler.eta_min {self.learning_rate_scheduler.eta_min:g} is above "
                f"learning_rate {self.learning_rate:g}"
            )
        return self
