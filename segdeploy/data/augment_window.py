"""Where the windows of a batch lie in their pictures: anywhere, where no class rules, or about a rare class.

An offset is that of a window's centre from its picture's, in the picture's pixels, before the steps of
`auto_augmentation`. The draws come from a generator on the CPU; the masks stay on their device, and nothing waits for
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segdeploy.classes import IGNORE
from segdeploy.data.augment_geometry import affine_maps, grid_of, sample_labels

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.config.augmentation import Crop
    from segdeploy.data.augment_geometry import Moves, Size

TRIES = 10
"""Windows that are drawn for `cat_max_ratio`, as in MMSegmentation's RandomCrop."""
_LATTICE = 128
"""Labels are counted on at least so many rows and columns of a window, or on all of a smaller one."""


def choose_windows(
    crop: Crop | None, pixels: Tensor | None, moves: Moves, masks: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(N,) offsets along y and x, on the CPU unless the masks decide.

    Args:
        crop: the windows that are wanted; None: of the pictures' size.
        pixels: (C,), how many pixels of the training masks each class has; only windows about rare classes need it.
        moves: of the N pictures, on the CPU.
        masks: (N, H, W) uint8, 255 = ignore.
        generator: on the CPU.
    """
    picture: Size = (masks.shape[1], masks.shape[2])
    size = picture if crop is None else (crop.height, crop.width)

    def draw() -> Tensor:
        """(2, N) offsets."""
        places = [torch.rand(len(masks), generator=generator) - 0.5 for _ in size]
        sides = zip(picture, size, places, strict=True)
        return torch.stack([_place(full, side, moves.scale, where) for full, side, where in sides])

    shift = draw()
    if crop is not None and crop.cat_max_ratio < 1:
        shift = _balanced(torch.stack([shift, *(draw() for _ in range(TRIES - 1))]), crop, moves, masks)
    if crop is not None and crop.rare_class_probability and pixels is not None:
        shift = _about_rare(shift, crop, pixels, moves, masks, generator)
    return shift[0], shift[1]


def _place(full: int, window: int, scale: Tensor, where: Tensor) -> Tensor:
    """(N,) offsets along one side; `where` is -0.5..0.5.

    The window lies anywhere inside the scaled picture, or the picture anywhere inside the window.
    """
    return _snap(where * (scale * full - window).abs() / scale, full, window)


def _snap(offset: Tensor, full: int, window: int) -> Tensor:
    """Without scaling an offset is in whole pixels, so that a mere crop is not blurred."""
    corner = (full - window) / 2
    return ((offset + corner).round() - corner).float()


def _balanced(tries: Tensor, crop: Crop, moves: Moves, masks: Tensor) -> Tensor:
    """Of (TRIES, 2, N) offsets the first whose window keeps the ratio, or else that of the most even window: (2, N)."""
    device, picture = masks.device, (masks.shape[1], masks.shape[2])
    size = (crop.height, crop.width)
    step = max(1, min(size) // _LATTICE)
    lattice = (-(-size[0] // step), -(-size[1] // step))
    moves, tries = moves.to(device), tries.to(device)
    best = tries[0]
    least = torch.full((len(masks),), torch.inf, device=device)
    for shift in tries:
        theta = affine_maps(moves, picture, size, shift[0], shift[1])
        share = largest_share(sample_labels(masks, grid_of(theta, lattice)))
        better = (least > crop.cat_max_ratio) & (share < least)
        best, least = torch.where(better, shift, best), torch.where(better, share, least)
        if device.type == "cpu" and bool((least <= crop.cat_max_ratio).all()):
            break  # elsewhere it would cost more to ask than to go on
    return best


def _about_rare(
    shift: Tensor, crop: Crop, pixels: Tensor, moves: Moves, masks: Tensor, generator: torch.Generator
) -> Tensor:
    """(2, N) offsets, of which a share of `rare_class_probability` is replaced by that of a pixel of a drawn class."""
    device, count = masks.device, len(masks)
    fires = (torch.rand(count, generator=generator) < crop.rare_class_probability).to(device)
    rarity = torch.where(pixels > 0, pixels.sum() / pixels, 0.0).float()
    row, column, found = draw_pixels(masks, rarity, generator)
    picture = (masks.shape[1], masks.shape[2])
    # A pixel's centre lies half a pixel from its corner.
    point = torch.stack([column + 0.5 - picture[1] / 2, row + 0.5 - picture[0] / 2], 1)
    if moves.warp is not None:
        back = torch.linalg.inv(moves.warp).to(device)
        point = (back @ torch.cat([point, torch.ones_like(point[:, :1])], 1)[..., None])[:, :2, 0]
    scale = moves.scale.to(device)
    centred = []
    for full, side, offset in zip(picture, (crop.height, crop.width), (point[:, 1], point[:, 0]), strict=True):
        reach = (scale * full - side).abs() / scale / 2  # inside the picture, as far as it goes
        centred.append(_snap(offset.clamp(-reach, reach), full, side))
    return torch.where(fires & found, torch.stack(centred), shift.to(device))


def count_labels(labels: Tensor) -> Tensor:
    """(N, ...) labels 0..255 to (N, 256) int64: how many there are of each."""
    flat = labels.flatten(1).long()
    ones = torch.ones(1, dtype=torch.int64, device=flat.device).expand_as(flat)
    return torch.zeros(len(flat), 256, dtype=torch.int64, device=flat.device).scatter_add_(1, flat, ones)


def largest_share(labels: Tensor) -> Tensor:
    """(N, ...) labels to (N,): the largest class's share of the pixels with a label; 1 where there is none."""
    counts = count_labels(labels)[:, :IGNORE]
    total = counts.sum(1)
    return torch.where(total > 0, counts.amax(1) / total.clamp(min=1), 1.0)


def draw_pixels(masks: Tensor, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One pixel of each mask: a class by its weight among those that the mask shows, then a pixel of it.

    Args:
        masks: (N, H, W) uint8, 255 = ignore.
        weights: (C,) float32 from 0, on the CPU; classes of weight 0 are not drawn.
        generator: on the CPU.

    Returns:
        (N,) rows, (N,) columns, and (N,) bool: whether there was a class to draw.
    """
    device, (count, height, width) = masks.device, masks.shape
    # The largest weight / Exp(1) is that of class c with a probability of its weight over the sum of all.
    race = weights / torch.empty(count, len(weights)).exponential_(generator=generator)
    quantile = torch.rand(count, generator=generator).to(device)
    pixels = count_labels(masks)[:, : len(weights)]
    score, label = torch.where(pixels > 0, race.to(device), 0.0).max(1)
    among = pixels.gather(1, label[:, None])
    rank = torch.minimum((quantile[:, None] * among).long() + 1, among)  # from 1; rounding must not pass the last
    seen = (masks.flatten(1) == label[:, None]).cumsum(1)
    place = torch.searchsorted(seen, rank)[:, 0].clamp(max=height * width - 1)
    return place // width, place % width, score > 0
