"""All geometric steps of a batch as one affine map per sample, and the sampling of images and masks by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from segdeploy.classes import IGNORE
from segdeploy.config.augmentation import HorizontalFlip, Rotate, Scale, VerticalFlip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from segdeploy.config.augmentation import Augmentation

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True)
class Moves:
    """How each of N pictures is moved before a window is cut; all about its centre."""

    scale: Tensor
    """(N,) factors; below 1 the picture shrinks."""
    flip_x: Tensor
    """(N,) -1 mirrors left and right, 1 does not."""
    flip_y: Tensor
    """(N,) -1 mirrors top and bottom, 1 does not."""
    angle: Tensor
    """(N,) radians, counter-clockwise."""
    warp: Tensor | None = None
    """(N, 3, 3) further maps of the picture, from its new pixels to its old ones, (x, y, 1) from the centre; they
    come first."""

    def to(self, device: torch.device) -> Moves:
        """The same on another device."""
        warp = None if self.warp is None else self.warp.to(device)
        scale, flip_x, flip_y, angle = (t.to(device) for t in (self.scale, self.flip_x, self.flip_y, self.angle))
        return Moves(scale, flip_x, flip_y, angle, warp)


def draw_moves(
    steps: Sequence[Augmentation], count: int, generator: torch.Generator, warp: Tensor | None = None
) -> Moves:
    """Scale, flips and rotation of `count` pictures, as the configuration's steps bound them."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    scale, flip_x, flip_y = torch.ones(count), torch.ones(count), torch.ones(count)
    angle = torch.zeros(count)
    for step in steps:
        if isinstance(step, Scale):
            scale = torch.exp(uniform(math.log(step.min), math.log(step.max)))
        elif isinstance(step, HorizontalFlip):
            flip_x = 1 - 2 * (uniform(0, 1) < step.probability).float()
        elif isinstance(step, VerticalFlip):
            flip_y = 1 - 2 * (uniform(0, 1) < step.probability).float()
        elif isinstance(step, Rotate):
            angle = torch.deg2rad(uniform(-step.degree, step.degree)) * (uniform(0, 1) < step.probability)
    return Moves(scale, flip_x, flip_y, angle, warp)


def affine_maps(moves: Moves, picture: Size, window: Size, shift_y: Tensor, shift_x: Tensor) -> Tensor:
    """(N, 2, 3) maps from the window's coordinates to the picture's, both -1..1, as `affine_grid` takes them.

    Args:
        moves: of the N pictures.
        picture: size of the pictures.
        window: size of the result.
        shift_y: (N,) offsets of the windows' centres from the pictures', in the pictures' pixels.
        shift_x: the same along the other axis.
    """
    (height, width), (rows, columns) = picture, window
    cos, sin = torch.cos(moves.angle) / moves.scale, torch.sin(moves.angle) / moves.scale
    # In pixels from the centres: input = R(angle) / scale * flip * output + shift.
    theta = torch.stack(
        [
            torch.stack(
                [cos * moves.flip_x * columns / width, -sin * moves.flip_y * rows / width, 2 * shift_x / width], 1
            ),
            torch.stack(
                [sin * moves.flip_x * columns / height, cos * moves.flip_y * rows / height, 2 * shift_y / height], 1
            ),
        ],
        1,
    )
    if moves.warp is None:
        return theta
    half = torch.tensor([width / 2, height / 2, 1.0], device=theta.device)  # of -1..1, in pixels
    warp = moves.warp * half / half[:, None]
    return (warp @ torch.cat([theta, theta.new_tensor([0, 0, 1]).expand(len(theta), 1, 3)], 1))[:, :2]


def grid_of(theta: Tensor, size: Size) -> Tensor:
    """(N, *size, 2) places in the pictures, -1..1, of every pixel of the windows."""
    return F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)


def sample_images(images: Tensor, grid: Tensor) -> Tensor:
    """(N, C, H, W) at the grid's places: bilinear; 0 outside the picture."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def sample_labels(masks: Tensor, grid: Tensor) -> Tensor:
    """(N, H, W) labels at the grid's places, float32: nearest, so that none is invented; 255 outside the picture."""
    # Shifted so that the zero padding comes out as 255.
    y = masks.unsqueeze(1).float().sub_(IGNORE)
    y = F.grid_sample(y, grid, mode="nearest", padding_mode="zeros", align_corners=False).add_(IGNORE)
    return y.squeeze(1).round_()
