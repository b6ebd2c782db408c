"""What training minimises: one loss, or a list of them; in Ludwig's names where Ludwig has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, PositiveFloat, PositiveInt, Tag

from segdeploy.config.bounds import NonNegative
from segdeploy.frozen import Frozen


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("expected an odd number of pixels")
    return value


OddSide = Annotated[int, Field(ge=3, le=63), AfterValidator(_odd)]


class _Weighted(Frozen):
    """What every loss has. Pixels without a label, and those of classes of weight 0, are left out of all of them."""

    weight: PositiveFloat = 1.0
    """Factor of this loss in the sum."""
    class_weights: tuple[NonNegative, ...] | dict[str, NonNegative] | Literal["auto"] | None = None
    """One weight per class as a list or by name; auto: median frequency / frequency (Eigen and Fergus 2015)."""


class CrossEntropy(_Weighted):
    """Cross-entropy, mean over the pixels that have a label."""

    type: Literal["softmax_cross_entropy"] = "softmax_cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over all classes."""


class Focal(_Weighted):
    """Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002): sure pixels count little."""

    type: Literal["focal"] = "focal"
    gamma: NonNegative = 2.0
    """Power of 1 - p, by which each pixel's cross-entropy is multiplied; 0: plain cross-entropy. The paper's alpha is
    `class_weights`."""


class Dice(_Weighted):
    """Soft Dice loss (Milletari et al. 2016, https://arxiv.org/abs/1606.04797), mean over each image's classes."""

    type: Literal["dice"] = "dice"
    smooth: NonNegative = 1.0
    """Added to both halves of the fraction, in pixels, so that small objects change it less abruptly."""


class Lovasz(_Weighted):
    """Lovasz-softmax (Berman et al. 2018, https://arxiv.org/abs/1705.08790): IoU itself, mean over each image's
    classes."""

    type: Literal["lovasz_softmax"] = "lovasz_softmax"


class Ohem(_Weighted):
    """Cross-entropy of the hardest pixels of each image alone (Shrivastava et al. 2016,
    https://arxiv.org/abs/1604.03540)."""

    type: Literal["ohem"] = "ohem"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Pixels whose own class has at least this probability are left out."""
    min_kept: PositiveInt = 10_000
    """At least so many pixels of an image stay, the hardest first."""


class Boundary(_Weighted):
    """1 - F1 of soft contours (Bokhovkin and Burnaev 2019, https://arxiv.org/abs/1905.07852), mean over those classes
    of an image that have a contour."""

    type: Literal["boundary"] = "boundary"
    theta0: OddSide = 3
    """Side in pixels of the window that finds contours: half of it is their width."""
    theta: OddSide = 5
    """Side in pixels of the window in which two contours meet: half of it is how far apart they may lie."""


def _type(value: Any) -> str:
    """Which loss a value is meant to be; cross-entropy where it does not say."""
    named = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return named if isinstance(named, str) else "softmax_cross_entropy"


Loss = Annotated[
    Annotated[CrossEntropy, Tag("softmax_cross_entropy")]
    | Annotated[Focal, Tag("focal")]
    | Annotated[Dice, Tag("dice")]
    | Annotated[Lovasz, Tag("lovasz_softmax")]
    | Annotated[Ohem, Tag("ohem")]
    | Annotated[Boundary, Tag("boundary")],
    Discriminator(_type),
]
"""One loss by its `type`."""

Losses = Loss | Annotated[tuple[Loss, ...], Field(min_length=1)]
"""One loss, or a list whose weighted sum is minimised."""
