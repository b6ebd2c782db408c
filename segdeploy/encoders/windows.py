"""Window attention at the sizes that a configuration asks for.

Swin (Liu et al. 2021, https://arxiv.org/abs/2103.14030) can take any size: its maps are padded to whole
windows. MaxViT (Tu et al. 2022, https://arxiv.org/abs/2204.01697) cannot: its grids need whole multiples.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from timm.models import maxxvit
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn

from segdeploy.errors import ConfigError

COARSEST = 32  # stride of the last level of Swin and of MaxViT


class _PaddedAttention:
    """Pads before the cyclic shift, as the authors' code does; does not shift where one window covers the map.

    timm shifts first and pads then, so that its mask lets opposite edges of a padded map see each other, and it
    fixes which blocks shift by the size of its training images. At that size all three do the same.
    """

    def _attn(self: Any, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H, W, C)."""
        sides = x.shape[1:3]
        padded = [math.ceil(side / window) * window for side, window in zip(sides, self.window_size, strict=True)]
        x = F.pad(x, (0, 0, 0, padded[1] - sides[1], 0, padded[0] - sides[0]))
        self.shift_size = tuple(
            shift if side > window else 0
            for shift, side, window in zip(self.target_shift_size, padded, self.window_size, strict=True)
        )
        attended: Tensor = super()._attn(x)  # type: ignore[misc]
        return attended[:, : sides[0], : sides[1]]


class _SwinBlock(_PaddedAttention, SwinTransformerBlock):  # type: ignore[misc]
    """A Swin block for maps of any size."""


class _SwinV2Block(_PaddedAttention, SwinTransformerV2Block):  # type: ignore[misc]
    """A Swin V2 block for maps of any size."""


_ANY_SIZE: dict[type, type] = {SwinTransformerBlock: _SwinBlock, SwinTransformerV2Block: _SwinV2Block}
_PARTITIONED = (maxxvit.PartitionAttentionCl, maxxvit.PartitionAttention2d, maxxvit.ParallelPartitionAttention)


def options_for(model_name: str) -> dict[str, Any]:
    """What `timm.create_model` must be told so that Swin takes images of other sizes than its training images."""
    return {"strict_img_size": False} if model_name.startswith(("swin_", "swinv2_")) else {}


def take_any_size(body: nn.Module) -> int:
    """Make the Swin blocks in `body` take maps of any size; the weights and their names stay.

    Returns:
        The number that height and width of an image must be padded to a multiple of (1: no padding).
    """
    found = False
    for block in body.modules():
        if type(block) in _ANY_SIZE:
            block.__class__ = _ANY_SIZE[type(block)]
            found = True
    return int(body.patch_embed.patch_size[0]) if found else 1  # type: ignore[index, union-attr]


def whole_multiple(body: nn.Module) -> int:
    """The number that height and width must be a multiple of for MaxViT's windows and grids; 1 for other models."""
    sides = [side for m in body.modules() if isinstance(m, _PARTITIONED) for side in m.partition_size]
    return COARSEST * math.lcm(*sides) if sides else 1


def check_multiple(model_name: str, height: int, width: int, multiple: int) -> None:
    """ConfigError with the next sizes that work, unless height and width are multiples of `multiple`."""
    if height % multiple == 0 and width % multiple == 0:
        return
    below = [max(side // multiple, 1) * multiple for side in (height, width)]
    above = [math.ceil(side / multiple) * multiple for side in (height, width)]
    near = dict.fromkeys(f"{w}x{h}" for h, w in (below, above))
    raise ConfigError(
        f"{model_name} cannot take {width}x{height} images: width and height must be multiples of {multiple}; "
        f"the next sizes that work: {', '.join(near)}"
    )
