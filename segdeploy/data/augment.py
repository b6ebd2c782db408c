"""Random changes of a whole batch on its device, image and mask by the same geometry.

All geometric steps become one affine map per sample and one `grid_sample`: bilinear for the image,
nearest for the mask. What lies outside the picture is the mean colour and is ignored by the loss.
The other steps change the image alone, in the order in which they are listed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.config.augmentation import (
    Blur,
    Brightness,
    ColorJitter,
    Contrast,
    Crop,
    HorizontalFlip,
    Rotate,
    Scale,
    VerticalFlip,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from segdeploy.config.augmentation import Augmentation
    from segdeploy.model.spec import Preprocessing

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


class Augment:
    """Configured steps as a callable on batches.

    Args:
        steps: the configuration's list; the order of its geometric steps does not matter.
        preprocessing: for mean and standard deviation.
    """

    def __init__(self, steps: Sequence[Augmentation], preprocessing: Preprocessing) -> None:
        self.steps = steps
        self.mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self.moves = any(isinstance(s, Crop | HorizontalFlip | Rotate | Scale | VerticalFlip) for s in steps)
        self.recolors = any(isinstance(s, Blur | Brightness | ColorJitter | Contrast) for s in steps)

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            images: (N, H, W, 3) uint8 RGB.
            masks: (N, H, W) uint8, 255 = ignore.
            generator: on the CPU; all randomness comes from it.

        Returns:
            (N, 3, h, w) float32, normalised, and (N, h, w) int64; h and w are the crop's, or H and W.
        """
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        # Centred on the mean first, so that grid_sample's zero padding is the mean colour.
        x = images.permute(0, 3, 1, 2).float().div_(255).sub_(mean)
        if self.moves:
            theta, size = self._affine(x.shape, generator)
            grid = F.affine_grid(theta.to(x.device), [len(x), 3, *size], align_corners=False)
            x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            # Shifted so that the zero padding comes out as 255.
            y = masks.unsqueeze(1).float().sub_(IGNORE)
            y = F.grid_sample(y, grid, mode="nearest", padding_mode="zeros", align_corners=False).add_(IGNORE)
            masks = y.squeeze(1).round_()
        if self.recolors:
            x.add_(mean)
            for step in self.steps:
                x = _recolor(x, step, generator)
            x = x.sub_(mean)
        return x.div_(std), masks.long()

    def _affine(self, shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, tuple[int, int]]:
        """(N, 2, 3) maps from the output's coordinates to the input's, both -1..1, and the output's size."""
        n, _, height, width = shape
        size = next(((s.height, s.width) for s in self.steps if isinstance(s, Crop)), (height, width))

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator) * (high - low) + low

        scale, flip_x, flip_y, angle = torch.ones(n), torch.ones(n), torch.ones(n), torch.zeros(n)
        for step in self.steps:
            if isinstance(step, Scale):
                scale = torch.exp(uniform(math.log(step.min), math.log(step.max)))
            elif isinstance(step, HorizontalFlip):
                flip_x = 1 - 2 * (uniform(0, 1) < step.probability).float()
            elif isinstance(step, VerticalFlip):
                flip_y = 1 - 2 * (uniform(0, 1) < step.probability).float()
            elif isinstance(step, Rotate):
                angle = torch.deg2rad(uniform(-step.degree, step.degree)) * (uniform(0, 1) < step.probability)
        shift_y, shift_x = (
            _place(full, window, scale, uniform(-0.5, 0.5)) for full, window in zip((height, width), size, strict=True)
        )
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        # In pixels from the centres: input = R(angle) / scale * flip * output + shift.
        theta = torch.stack(
            [
                torch.stack([cos * flip_x * size[1] / width, -sin * flip_y * size[0] / width, 2 * shift_x / width], 1),
                torch.stack(
                    [sin * flip_x * size[1] / height, cos * flip_y * size[0] / height, 2 * shift_y / height], 1
                ),
            ],
            1,
        )
        return theta, size


def _place(full: int, window: int, scale: Tensor, where: Tensor) -> Tensor:
    """(N,) offsets, in the input's pixels, of the window's centre from the picture's; `where` is -0.5..0.5.

    The window lies anywhere inside the scaled picture, or the picture anywhere inside the window. Without
    scaling the offset is in whole pixels, so that a mere crop is not blurred.
    """
    corner = (full - window) / 2
    return ((where * (scale * full - window).abs() / scale + corner).round() - corner).float()


def _recolor(x: Tensor, step: Augmentation, generator: torch.Generator) -> Tensor:
    """One step on (N, 3, H, W) images on the scale 0..1; geometric steps leave them as they are."""
    if isinstance(step, ColorJitter):
        return _jitter(x, step, generator)
    if isinstance(step, Brightness):
        return _some(x, step.probability, (step.min, step.max), adjust_brightness, generator)
    if isinstance(step, Contrast):
        return _some(x, step.probability, (step.min, step.max), adjust_contrast, generator)
    if isinstance(step, Blur):
        return _some(x, step.probability, (0.1, 2.0), partial(gaussian_blur, kernel_size=step.kernel_size), generator)
    return x


def _some(
    x: Tensor,
    probability: float,
    bounds: tuple[float, float],
    change: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Change each image with `probability`, by a value of its own that is drawn between `bounds`."""
    fires = torch.rand(len(x), generator=generator) < probability
    values = torch.rand(len(x), generator=generator) * (bounds[1] - bounds[0]) + bounds[0]
    if fires.any():
        chosen = fires.nonzero().flatten().to(x.device)
        x[chosen] = change(x[chosen], values[fires].to(x.device))
    return x


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """(N, 3, H, W) images on the scale 0..1 times (N,) factors, clipped."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """(N, 3, H, W) images on the scale 0..1, their distance from their mean grey times (N,) factors, clipped."""
    return torch.lerp(_grey(x).mean((2, 3), keepdim=True), x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur (N, 3, H, W) images by (N,) sigmas with a kernel of `kernel_size` (odd) pixels; borders are mirrored."""
    n, channels, height, width = x.shape
    half = kernel_size // 2
    offsets = torch.arange(-half, half + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (N * 3, kernel_size)
    planes = F.pad(x, (half, half, half, half), mode="reflect").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernel.view(-1, 1, 1, kernel_size), groups=n * channels)
    planes = F.conv2d(planes, kernel.view(-1, 1, kernel_size, 1), groups=n * channels)
    return planes.view(n, channels, height, width)


def _grey(x: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W)."""
    return (x * torch.tensor(_GREY, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _jitter(x: Tensor, step: ColorJitter, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation of (N, 3, H, W) images on the scale 0..1, per sample."""

    def factor(spread: float) -> Tensor:
        values = torch.rand(len(x), generator=generator) * (2 * spread) + (1 - spread)
        return values.view(-1, 1, 1, 1).to(x.device)

    x = x * factor(step.brightness)
    grey = _grey(x)
    middle = grey.mean((2, 3), keepdim=True)
    contrast, saturation = factor(step.contrast), factor(step.saturation)
    # (x - middle) * contrast + middle, then blended with its own grey.
    x = torch.lerp((grey - middle) * contrast + middle, (x - middle) * contrast + middle, saturation)
    return x.clamp_(0, 1)
