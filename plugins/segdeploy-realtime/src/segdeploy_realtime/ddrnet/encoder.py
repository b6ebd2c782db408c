"""Encoder `ddrnet`: both branches of a deep dual-resolution network, and its auxiliary map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from segdeploy.plugin import Auxiliary, EncoderPlugin, FeatureMap, Section, hookimpl
from segdeploy_realtime.ddrnet.blocks import PreActivationHead
from segdeploy_realtime.ddrnet.network import VARIANTS, DualResNet
from segdeploy_realtime.ddrnet.pretrained import load_official

if TYPE_CHECKING:
    from collections.abc import Callable

STRIDES = (8, 16, 32, 64)


class DDRNetConfig(Section):
    """Fast on large pictures: detail stays at stride 8 all the way. Made for the decoder `ddrnet`."""

    variant: Literal["23_slim", "23", "39"] = "23_slim"
    """Which network of the paper: 5.7, 20.1 or 32.4 million parameters with its decoder."""
    aux_weight: Annotated[float, Field(ge=0, le=10)] = 0.4
    """Weight of the second loss, on the fine branch in the middle of the network; 0: none."""
    weights: str | None = None
    """A local checkpoint of the paper's authors to start from, .pth or .safetensors."""
    trainable: bool = True
    """false: the network keeps its weights and its normalisation statistics while decoder and heads learn."""


class DDRNet(nn.Module):
    """(N, 3, H, W) -> four maps at strides 8, 16, 32 and 64.

    The fine branch ends at stride 8, the coarse one at 64. These two are not activated, for the decoder `ddrnet`
    begins with a normalisation; those at 16 and 32 are the coarse branch on its way.
    """

    dynamic_size = True

    def __init__(self, config: DDRNetConfig) -> None:
        super().__init__()
        self.variant = VARIANTS[config.variant]
        self.backbone = DualResNet(self.variant)
        self.features = tuple(
            FeatureMap(channels=c, stride=s) for c, s in zip(self.backbone.channels, STRIDES, strict=True)
        )
        self.aux: tuple[Auxiliary, ...] = ()
        if config.aux_weight > 0:
            self.aux = (Auxiliary(channels=self.variant.head, stride=STRIDES[0], weight=config.aux_weight),)
            self.auxiliary = PreActivationHead(self.backbone.middle_channels, self.variant.head)
        else:
            self.register_load_state_dict_pre_hook(_leave_auxiliary)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) float, normalised -> feature maps, finest first."""
        maps: tuple[Tensor, ...] = self.backbone(image)[0]
        return maps

    def forward_aux(self, image: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What `forward` gives, and the auxiliary map (N, C, H / 8, W / 8) where there is one."""
        maps, middle = self.backbone(image)
        return maps, (self.auxiliary(middle),) if self.aux else ()


def _leave_auxiliary(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of a network with the second loss fit one without it."""
    for name in [name for name in state if name.startswith(f"{prefix}auxiliary.")]:
        del state[name]


def load_pretrained(module: nn.Module, config: DDRNetConfig) -> None:
    """The checkpoint of `config.weights`, if one is given, into the network in place.

    Raises:
        MissingPartError: no such file, or one that does not fit.
    """
    assert isinstance(module, DDRNet)
    if config.weights is not None:
        load_official(module.backbone, module.variant, Path(config.weights))


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `ddrnet`."""
    register(
        EncoderPlugin(
            name="ddrnet",
            summary="deep dual-resolution network, for real time",
            config=DDRNetConfig,
            build=DDRNet,
            load_pretrained=load_pretrained,
        )
    )
