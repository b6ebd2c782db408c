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
    batch_size: PositiveInt = 8
    """Samples that a process takes through the network at a time."""
    effective_batch_size: PositiveInt | Literal["auto"] = "auto"
    """Samples per step of the optimiser, over all processes; where batch_size x processes is less, gradients of
    several batches are added up. auto: batch_size x gradient_accumulation_steps x processes."""
    gradient_accumulation_steps: PositiveInt | Literal["auto"] = "auto"
    """Batches of each process per step of the optimiser. auto: as effective_batch_size needs; 1 where that is auto."""
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
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep a moving average of the weights; each step it keeps this share of itself. null: none."""
    use_mixed_precision: bool | Literal["bf16", "fp16"] = False
    """Autocast on CUDA: bf16, or fp16 (the same as true) with loss scaling; on a CPU training stays in FP32."""
    compile: bool = False
    """Compile the network with torch.compile: minutes at the start for faster steps."""
    loss_at: Literal["image", "decoder"] = "image"
    """image: logits are scaled up to the image before the loss. decoder: masks are scaled down to the logits (nearest),
    which is faster and changes what is learnt."""
    sync_batchnorm: bool | None = None
    """Whether batch norm takes its statistics over the batches of all processes, which needs CUDA; null: there, yes."""
    distributed_timeout: PositiveFloat = 600.0
    """Seconds after which processes that train together and wait for another give up."""
    checkpoints_per_epoch: Annotated[int, Field(ge=0)] = 0
    """How often in an epoch the state is saved for --resume; 0: at its end alone. Validation is at its end alone."""
    steps_per_checkpoint: Annotated[int, Field(ge=0)] = 0
    """The state is saved for --resume after this many steps of an epoch, too; 0: at its end alone."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seed of weights, order and augmentation."""

    @model_validator(mode="after")
    def _accumulation(self) -> Trainer:
        whole, parts = self.effective_batch_size, self.gradient_accumulation_steps
        if whole != "auto" and parts != "auto" and whole % (self.batch_size * parts):
            raise ValueError(
                f"effective_batch_size {whole} is no multiple of batch_size {self.batch_size} x "
                f"gradient_accumulation_steps {parts}; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _one_rhythm(self) -> Trainer:
        if self.checkpoints_per_epoch and self.steps_per_checkpoint:
            raise ValueError("give checkpoints_per_epoch or steps_per_checkpoint, not both")
        return self

    @model_validator(mode="after")
    def _falls(self) -> Trainer:
        if self.learning_rate_scheduler.eta_min > self.learning_rate:
            raise ValueError(
                f"learning_rate_scheduler.eta_min {self.learning_rate_scheduler.eta_min:g} is above "
                f"learning_rate {self.learning_rate:g}"
            )
        return self
