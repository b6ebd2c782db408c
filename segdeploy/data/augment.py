"""Random changes of a whole batch on its device, image and mask by the same geometry.

All geometric steps become one affine map per sample and one `grid_sample`: bilinear for the image,
nearest for the mask. What lies outside the picture is the mean colour and is ignored by the loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.config.schema import ColorJitter, Crop, HorizontalFlip, Rotate, Scale, VerticalFlip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from segdeploy.config.schema import Augmentation
    from segdeploy.model.spec import Preprocessing


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
        self.moves = any(not isinstance(s, ColorJitter) for s in steps)

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
        for step in self.steps:
            if isinstance(step, ColorJitter):
                x = _jitter(x.add_(mean), step, generator).sub_(mean)
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
                angle = torch.deg2rad(uniform(-step.degree, step.degree))
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


def _jitter(x: Tensor, step: ColorJitter, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation of (N, 3, H, W) images on the scale 0..1, per sample."""

    def factor(spread: float) -> Tensor:
        values = torch.rand(len(x), generator=generator) * (2 * spread) + (1 - spread)
        return values.view(-1, 1, 1, 1).to(x.device)

    grey_of = torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)  # ITU-R BT.601 luma
    x = x * factor(step.brightness)
    grey = (x * grey_of).sum(1, keepdim=True)
    middle = grey.mean((2, 3), keepdim=True)
    contrast, saturation = factor(step.contrast), factor(step.saturation)
    # (x - middle) * contrast + middle, then blended with its own grey.
    x = torch.lerp((grey - middle) * contrast + middle, (x - middle) * contrast + middle, saturation)
    return x.clamp_(0, 1)
