"""Decoder `logits`: nothing more to do; the encoder is a whole network, see `segdeploy.encoders.factory`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from segdeploy.errors import ConfigError
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


class LogitsConfig(Section):
    """Hands on the one map of the encoder `factory`."""


class Logits(nn.Module):
    """One map -> the same map."""

    dynamic_size = True

    def __init__(self, config: LogitsConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        if len(features) != 1:
            raise ConfigError(f"decoder logits: expected one level, as of the encoder factory, found {len(features)}")
        (self.out,) = features

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return maps[0]


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `logits`."""
    register(DecoderPlugin(name="logits", summary="for networks that give logits", config=LogitsConfig, build=Logits))
