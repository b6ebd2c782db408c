"""The configuration's `trainer` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from segdeploy.config.bounds import Pattern
from segdeploy.config.optimizer import GradientClipping, Optimizer
from segdeploy.config.scheduler import Scheduler
from segdeploy.frozen import Frozen


class Trainer(Frozen):
    """How to train."""

    epochs: PositiveInt = 100
    """Passes over the training set."""
    batch_size: PositiveInt | Literal["auto"] = 8
    """Samples that a process takes through the network at a time; auto: as many as fit into memory and still make
    training faster, at most a fifth of the samples."""
    max_batch_size: PositiveInt = 1 << 40
    """What `batch_size: auto` chooses at most; a number is taken as it is."""
    effective_batch_size: PositiveInt | Literal["auto"] = "auto"
    """Samples per step of the optimiser, over all processes; where batch_size x processes is less, gradients of
    several batches are added up. auto: batch_size x gradient_accumulation_steps x processes."""
    gradient_accumulation_steps: PositiveInt | Literal["auto"] = "auto"
    """Batches of each process per step of the optimiser. auto: as effective_batch_size needs; 1 where that is auto."""
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
    layers_to_freeze_regex: Pattern | Annotated[tuple[Pattern, ...], Field(min_length=1)] | None = None
    """A regular expression, or several: parameters in whose names one is found keep their values, and the norms among
    them their statistics. Names are those of the weights file, such as encoder.body.layer1.0.conv1.weight."""
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
    sharding: bool = False
    """Of several processes, each keeps a share of the weights, their average, the gradients and the optimiser's state
    (FSDP2): room for large encoders, for more messages. false: each keeps all of it."""
    distributed_timeout: PositiveFloat = 600.0
    """Seconds after which processes that train together and wait for another give up."""
    checkpoints_per_epoch: Annotated[int, Field(ge=0)] = 0
    """How often in an epoch the state is saved for --resume; 0: at its end alone. Validation is at its end alone."""
    steps_per_checkpoint: Annotated[int, Field(ge=0)] = 0
    """The state is saved for --resume after this many steps of an epoch, too; 0: at its end alone."""
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

    @property
    def frozen_patterns(self) -> tuple[str, ...]:
        """`layers_to_freeze_regex` as a list."""
        patterns = self.layers_to_freeze_regex
        return (patterns,) if isinstance(patterns, str) else patterns or ()

    @model_validator(mode="after")
    def _accumulation(self) -> Trainer:
        size, whole, parts = self.batch_size, self.effective_batch_size, self.gradient_accumulation_steps
        if size == "auto" or whole == "auto" or parts == "auto":
            return self  # `segdeploy.train.plan` looks at them then
        if whole % (size * parts):
            raise ValueError(
                f"effective_batch_size {whole} is no multiple of batch_size {size} x "
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
        schedule = self.learning_rate_scheduler
        if self.learning_rate == "auto":
            return self  # `segdeploy.train.auto` looks at it then
        if schedule.end > self.learning_rate:
            key = "eta_min" if schedule.decay == "cosine" else "polynomial_end_lr"
            raise ValueError(
                f"learning_rate_scheduler.{key} {schedule.end:g} is above learning_rate {self.learning_rate:g}"
            )
        return self
