"""Encoder `convnextv2`: ConvNeXt V2 (Woo et al. 2023, https://arxiv.org/abs/2301.00808), as timm builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segdeploy.encoders.pretrained import PretrainedSection, load_pretrained
from segdeploy.encoders.timm import TimmEncoder
from segdeploy.plugin import EncoderPlugin, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

_Name = Literal[
    "convnextv2_atto", "convnextv2_femto", "convnextv2_pico", "convnextv2_nano",
    "convnextv2_tiny", "convnextv2_base", "convnextv2_large", "convnextv2_huge",
    "convnextv2_atto.fcmae_ft_in1k", "convnextv2_femto.fcmae_ft_in1k", "convnextv2_pico.fcmae_ft_in1k",
    "convnextv2_nano.fcmae_ft_in1k", "convnextv2_tiny.fcmae_ft_in1k", "convnextv2_base.fcmae_ft_in1k",
    "convnextv2_large.fcmae_ft_in1k", "convnextv2_huge.fcmae_ft_in1k",
    "convnextv2_base.fcmae_ft_in22k_in1k", "convnextv2_large.fcmae_ft_in22k_in1k",
    "convnextv2_base.fcmae_ft_in22k_in1k_384", "convnextv2_large.fcmae_ft_in22k_in1k_384",
]  # fmt: skip


class ConvNeXtV2Config(PretrainedSection):
    """ConvNeXt V2 from 3.4 M (atto) to 657 M (huge) parameters."""

    model_name: _Name = "convnextv2_base"
    """Which size, and which trained weights."""


def build(config: ConvNeXtV2Config) -> TimmEncoder:
    """The encoder with random weights; maps at strides 4, 8, 16, 32."""
    return TimmEncoder(config.model_name)


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `convnextv2`."""
    register(
        EncoderPlugin(
            name="convnextv2",
            summary="ConvNeXt V2, atto to huge",
            config=ConvNeXtV2Config,
            build=build,
            load_pretrained=load_pretrained,
        )
    )
