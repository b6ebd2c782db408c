"""Antialiased bicubic resampling as two small matrices, since TensorRT has no antialiased Resize.

The result is that of `torch.nn.functional.interpolate(mode="bicubic", antialias=True)`, and of Pillow.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@cache
def bicubic_matrix(before: int, after: int) -> NDArray[np.float32]:
    """(after, before): the weights by which `before` samples give `after`; each row sums to 1.

    Keys' cubic (1981, https://doi.org/10.1109/TASSP.1981.1163711) with a = -0.5, widened by the factor when
    shrinking. Samples beyond the edge have no weight.
    """
    factor = before / after
    width = max(factor, 1.0)
    centres = (np.arange(after) + 0.5) * factor
    distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / width
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    matrix: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return matrix


def resample_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, C) -> (size, C), bicubic and antialiased."""
    if tuple(grid.shape[:2]) == size:
        return grid
    rows, columns = (
        torch.from_numpy(bicubic_matrix(before, after)).to(grid)
        for before, after in zip(grid.shape[:2], size, strict=True)
    )
    # (h, H) x (H, W, C), then (w, W) x (h, W, C)
    resampled: Tensor = columns @ torch.tensordot(rows, grid, 1)
    return resampled
