"""The steps of `augmentation`, in Ludwig's names where Ludwig has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from segdeploy.config.bounds import Fraction, NonNegative, Side
from segdeploy.frozen import Frozen

Share = Annotated[float, Field(gt=0, le=1)]


class _Sometimes(Frozen):
    """Each sample draws for itself."""

    probability: Fraction = 0.5
    """Share of the samples that are changed."""


class HorizontalFlip(_Sometimes):
    """Mirror left and right."""

    type: Literal["random_horizontal_flip"]


class VerticalFlip(_Sometimes):
    """Mirror top and bottom."""

    type: Literal["random_vertical_flip"]


class Rotate(_Sometimes):
    """Turn about the centre; what lies outside the picture is ignored by the loss."""

    type: Literal["random_rotate"]
    degree: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Angles are drawn from -degree to degree."""


class _Range(Frozen):
    """A factor is drawn from min to max."""

    min: NonNegative = 0.5
    """Smallest factor."""
    max: PositiveFloat = 2.0
    """Largest factor."""

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Scale(_Range):
    """Zoom about the centre; what lies outside the picture is ignored by the loss."""

    type: Literal["random_scale"]
    min: PositiveFloat = 0.5
    """Smallest factor; below 1 the picture shrinks."""


class Crop(Frozen):
    """Train on a random window instead of the whole picture; what it shows outside the picture is ignored."""

    type: Literal["random_crop"]
    height: Side
    """Height of the window, pixels."""
    width: Side
    """Width of the window, pixels."""
    cat_max_ratio: Share = 1.0
    """Up to 10 windows are drawn until no class has more than this share of the labelled pixels; 1: the first is
    taken. Where none keeps it, the one of them that comes nearest is taken."""
    rare_class_probability: Fraction = 0.0
    """Share of the samples whose window is put about a pixel of one class: of the classes that the sample shows, one is
    drawn with a probability inversely proportional to its pixels in the training masks. `cat_max_ratio` leaves these
    windows alone."""


class Blur(_Sometimes):
    """Gaussian blur of the image; its sigma is drawn from 0.1 to 2 pixels."""

    type: Literal["random_blur"]
    kernel_size: Annotated[int, Field(ge=3, le=31)] = 3
    """Side of the kernel in pixels, odd."""

    @model_validator(mode="after")
    def _odd(self) -> Blur:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} is even; expected an odd number of pixels")
        return self


class Brightness(_Sometimes, _Range):
    """Multiply the image by a factor; 1 leaves it as it is."""

    type: Literal["random_brightness"]


class Contrast(_Sometimes, _Range):
    """Multiply the image's distance from its mean grey by a factor; 1 leaves it as it is."""

    type: Literal["random_contrast"]


class Gamma(_Sometimes, _Range):
    """Raise the image, on the scale 0..1, to a power; 1 leaves it as it is, below 1 dark parts become lighter."""

    type: Literal["random_gamma"]
    min: PositiveFloat = 0.7
    """Smallest power."""
    max: PositiveFloat = 1.5
    """Largest power."""


class Grayscale(_Sometimes):
    """Take the colour out of the image."""

    type: Literal["random_grayscale"]
    probability: Fraction = 0.1
    """Share of the samples that are changed."""


class ColorJitter(_Sometimes):
    """Change brightness, contrast and saturation, each by a factor drawn from 1 - x to 1 + x, and turn the hue."""

    type: Literal["random_color"]
    probability: Fraction = 1.0
    """Share of the samples that are changed."""
    brightness: Fraction = 0.3
    """x for brightness."""
    contrast: Fraction = 0.3
    """x for contrast, about the image's mean grey."""
    saturation: Fraction = 0.3
    """x for saturation, about each pixel's grey."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The hue is turned by -hue to hue, as shares of the colour circle."""


class AutoAugmentation(_Sometimes):
    """One of the published mixtures of operations, which move the mask too; what lies outside the picture is ignored.

    trivial_augment: one operation of any strength (Mueller and Hutter 2021, wide). rand_augment: two operations at 9
    of 30 (Cubuk et al. 2020). auto_augment: a pair that was found on ImageNet (Cubuk et al. 2019).
    """

    type: Literal["auto_augmentation"]
    probability: Fraction = 1.0
    """Share of the samples that are changed."""
    method: Literal["trivial_augment", "auto_augment", "rand_augment"] = "trivial_augment"
    """The mixture."""


class CutMix(_Sometimes, _Range):
    """Replace a box by the same box of another sample of the batch, image and mask (Yun et al. 2019)."""

    type: Literal["random_cut_mix"]
    min: Fraction = 0.1
    """Smallest share of the picture that the box takes; it has the picture's proportions and lies inside it."""
    max: Share = 0.5
    """Largest share."""


def _as_tuple(value: Any) -> Any:
    # The list of steps has passed through a function: pydantic takes its lists no longer for tuples.
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_tuple)]


class CopyPaste(_Sometimes):
    """Paste the pixels of some classes of another sample of the batch, image and mask (Ghiasi et al. 2021)."""

    type: Literal["random_copy_paste"]
    classes: Names | Literal["rare"] = "rare"
    """Names of the classes whose pixels are pasted; rare: those that `max_frequency` says."""
    max_frequency: Share = 0.02
    """A class is rare whose share of the labelled pixels of the training masks is at most this."""


Augmentation = Annotated[
    HorizontalFlip
    | VerticalFlip
    | Rotate
    | Scale
    | Crop
    | ColorJitter
    | Blur
    | Brightness
    | Contrast
    | Gamma
    | Grayscale
    | AutoAugmentation
    | CutMix
    | CopyPaste,
    Field(discriminator="type"),
]

GEOMETRIC = (HorizontalFlip, VerticalFlip, Rotate, Scale, Crop)
"""Steps that are one map together: one angle, one scale and one window, so that each may stand once."""


def _as_steps(value: Any) -> Any:
    """Ludwig's true and false as lists of steps."""
    if value is False:
        return ()
    if value is True:
        return ({"type": "random_horizontal_flip"}, {"type": "random_rotate"})
    if not isinstance(value, (list, tuple)):
        raise ValueError("expected true, false or a list of steps")
    return tuple(value)  # strict: what has passed through here is no longer JSON


def lonely(step: Augmentation, batch_size: int) -> str:
    """What is wrong with a step that takes pixels from another sample of the batch, where there is none; else ""."""
    if batch_size > 1 or not isinstance(step, CutMix | CopyPaste):
        return ""
    return f"{step.type} needs another sample in the batch; raise trainer.batch_size above 1"


Augmentations = Annotated[tuple[Augmentation, ...], BeforeValidator(_as_steps)]
"""A list of steps; true: random_horizontal_flip and random_rotate, each with its defaults; false: none."""
