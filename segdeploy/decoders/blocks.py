"""What the decoders share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    from segdeploy.plugin import FeatureMap


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 3, *, norm: bool = True) -> nn.Sequential:
    """(N, in, H, W) -> (N, out, H, W); without `norm` a bias stands in for batch normalisation."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not norm)
    ]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def resize_like(x: Tensor, reference: Tensor, mode: str = "bilinear", *, align_corners: bool = False) -> Tensor:
    """x at the height and width of `reference`; by size and not by factor, so that odd sizes fit."""
    size = reference.shape[-2:]
    return F.interpolate(x, size=size, mode=mode, align_corners=align_corners if mode == "bilinear" else None)


def levels_from(features: tuple[FeatureMap, ...], stride: int, at_least: int, decoder: str) -> list[int]:
    """Places of the levels whose stride is at least `stride`, finest first.

    Raises:
        ConfigError: there are fewer than `at_least`.
    """
    chosen = [i for i, f in enumerate(features) if f.stride >= stride]
    if len(chosen) < at_least:
        found = ", ".join(str(f.stride) for f in features)
        raise ConfigError(
            f"decoder {decoder}: needs {at_least} or more levels of stride {stride} or above, the encoder gives {found}"
        )
    return chosen
