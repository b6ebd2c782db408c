"""The update rule and the limits on the gradient."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from segdeploy.config.bounds import NonNegative
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


class GradientClipping(Frozen):
    """Limits on the gradient."""

    clipglobalnorm: PositiveFloat | None = 1.0
    """Largest L2 norm over all gradients together; null: no limit."""
