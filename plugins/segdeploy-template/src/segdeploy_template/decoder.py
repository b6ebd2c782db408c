"""Decoder `segdeploy_template`: all levels at one width, summed at the finest."""

from collections.abc import Callable

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl


class SegdeployTemplateConfig(Section):
    """Few parameters, and every level counts."""

    width: int = Field(default=64, ge=8, le=1024)
    """Channels to which every level is brought."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the channels that training drops."""


class SegdeployTemplate(nn.Module):
    """Maps (N, C_i, H / s_i, W / s_i), finest first -> (N, width, H / s, W / s), s the stride of the finest."""

    # No Python number is made from a shape, so the exported graph may leave height and width free.
    dynamic_size = True

    def __init__(self, config: SegdeployTemplateConfig, features: tuple[FeatureMap, ...]) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(f.channels, config.width, 1) for f in features)
        self.smooth = nn.Sequential(
            nn.Conv2d(config.width, config.width, 3, padding=1, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(config.dropout),
        )
        self.out = FeatureMap(channels=config.width, stride=features[0].stride)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Coarse to fine: what is coarser grows to the size of the next level and is added to it."""
        projected = [conv(x) for conv, x in zip(self.project, maps, strict=True)]
        merged = projected[-1]
        for finer in reversed(projected[:-1]):
            # By size and not by a factor, so that odd sizes fit.
            grown = F.interpolate(merged, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            merged = finer + grown
        smoothed: Tensor = self.smooth(merged)
        return smoothed


@hookimpl
def segdeploy_register_decoders(register: Callable[[DecoderPlugin], None]) -> None:
    """Register `segdeploy_template`."""
    register(
        DecoderPlugin(
            name="segdeploy_template",
            summary="all levels at one width, summed at the finest",
            config=SegdeployTemplateConfig,
            build=SegdeployTemplate,
        )
    )
