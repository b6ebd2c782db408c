"""What training minimises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segdeploy.config.bounds import NonNegative
from segdeploy.frozen import Frozen


class Loss(Frozen):
    """What training minimises: cross-entropy over the pixels that have a label."""

    type: Literal["softmax_cross_entropy"] = "softmax_cross_entropy"
    class_weights: tuple[NonNegative, ...] | dict[str, NonNegative] | Literal["auto"] | None = None
    """One weight per class as a list or by name; auto: median frequency / frequency (Eigen and Fergus 2015)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over all classes."""
