"""The steps of `augmentation`, in Ludwig's names where Ludwig has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from segdeploy.config.bounds import Fraction, NonNegative, Side
from segdeploy.frozen import Frozen


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


class Crop(Frozen):
    """Train on a random window instead of the whole picture."""

    type: Literal["random_crop"]
    height: Side
    """Height of the window, pixels."""
    width: Side
    """Width of the window, pixels."""


class ColorJitter(Frozen):
    """Change brightness, contrast and saturation, each by a factor drawn from 1 - x to 1 + x."""

    type: Literal["random_color"]
    brightness: Fraction = 0.3
    """x for brightness."""
    contrast: Fraction = 0.3
    """x for contrast, about the image's mean grey."""
    saturation: Fraction = 0.3
    """x for saturation, about each pixel's grey."""


Augmentation = Annotated[
    HorizontalFlip | VerticalFlip | Rotate | Scale | Crop | ColorJitter | Blur | Brightness | Contrast,
    Field(discriminator="type"),
]


def _as_steps(value: Any) -> Any:
    """Ludwig's true and false as lists of steps."""
    if value is False:
        return ()
    if value is True:
        return ({"type": "random_horizontal_flip"}, {"type": "random_rotate"})
    if not isinstance(value, (list, tuple)):
        raise ValueError("expected true, false or a list of steps")
    return tuple(value)  # strict: what has passed through here is no longer JSON


Augmentations = Annotated[tuple[Augmentation, ...], BeforeValidator(_as_steps)]
"""A list of steps; true: random_horizontal_flip and random_rotate, each with its defaults; false: none."""
