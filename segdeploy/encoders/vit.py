"""Encoders `vit`, `dinov2`, `clip`, `siglip`: plain vision transformers with a simple feature pyramid.

ViT: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929. Any image size: the image is padded to whole
patches and the position table resampled to their grid.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import timm
import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from segdeploy.encoders.families import section_of
from segdeploy.encoders.pretrained import PretrainedSection, TimmModel, load_pretrained
from segdeploy.encoders.pyramid import STRIDES, SimpleFeaturePyramid
from segdeploy.encoders.resample import resample_grid
from segdeploy.encoders.vit_table import PLAIN_FAMILIES
from segdeploy.errors import ConfigError
from segdeploy.plugin import EncoderPlugin, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.encoders.family_table import Family


class PlainSection(PretrainedSection):
    """Keys of every plain transformer."""

    pyramid_channels: Annotated[int, Field(ge=8, le=1024)] = 256
    """Width of the maps at strides 4, 8, 16 and 32 that are made from the transformer's one."""


class VitSection(PlainSection):
    """Keys of `vit` beside its variant."""

    model_name: str | None = None
    """Any plain vision transformer of timm's instead of a variant, such as vit_tiny_patch16_224."""


class PlainEncoder(TimmModel):
    """A plain vision transformer of timm's and a pyramid over its last map."""

    def __init__(self, model_name: str, pyramid_channels: int) -> None:
        super().__init__(model_name)
        self.patch = int(self.body.patch_embed.patch_size[0])
        if self.patch not in STRIDES:
            raise ConfigError(
                f"encoder.model_name: {model_name} has patches of {self.patch} pixels; expected one of {STRIDES} or 14"
            )
        self.pyramid = SimpleFeaturePyramid(self.body.embed_dim, self.patch, pyramid_channels)
        self.features = self.pyramid.features

    @property
    def backbone(self) -> nn.Module:
        """The transformer; the pyramid has no trained weights and always learns."""
        return cast("nn.Module", self.body)

    def create(self, **options: Any) -> nn.Module:
        """timm's transformer without its classifier, with patches of 16 pixels where it has 14."""
        if not timm.models.model_entrypoint(self.model_name).__module__.endswith(".vision_transformer"):
            raise NotImplementedError("it is no plain vision transformer; try type: timm")
        body = timm.create_model(self.model_name, dynamic_img_size=True, dynamic_img_pad=True, **options)
        if type(body) is not VisionTransformer or body.pos_embed is None:
            raise NotImplementedError("it is no plain vision transformer; try type: timm")
        body.prune_intermediate_layers(1)  # the last map is all that is read
        if body.patch_embed.patch_size == (14, 14):
            # A power of two lets the pyramid keep whole strides. The kernels are resampled as in FlexiViT (Beyer
            # et al. 2023, https://arxiv.org/abs/2212.08013), and the position table keeps its own grid.
            height, width = body.patch_embed.grid_size
            body.set_input_size((16 * height, 16 * width), (16, 16))
        return cast("nn.Module", body)

    def tokens(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, ceil(H / p), ceil(W / p)): the last map, as timm's `forward_features` gives it."""
        body = self.body
        patches = body.patch_embed(image)  # (N, h, w, C); pads at the right and at the bottom
        batch, height, width, _ = patches.shape
        # With or without an entry for the class token, as the model was trained.
        own = 0 if body.no_embed_class else body.num_prefix_tokens
        table = body.pos_embed[0]
        grid = table[own:].unflatten(0, body.patch_embed.grid_size)
        patches = patches + resample_grid(grid, (height, width))
        learned = [token for token in (body.cls_token, body.reg_token) if token is not None]
        if learned:
            prefix = torch.cat(learned, 1) + (table[:own] if own else 0)
            patches = torch.cat([prefix.expand(batch, -1, -1), patches.flatten(1, 2)], 1)
        else:
            patches = patches.flatten(1, 2)
        x = body.norm(body.blocks(body.norm_pre(body.patch_drop(body.pos_drop(patches)))))
        only_patches: Tensor = x[:, body.num_prefix_tokens :].transpose(1, 2).unflatten(2, (height, width))
        return only_patches

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) float, normalised -> feature maps at strides 4, 8, 16, 32."""
        maps: tuple[Tensor, ...] = self.pyramid(self.tokens(image), image.shape[-2:])
        return maps


def build(family: Family, config: Any) -> PlainEncoder:
    """The encoder with random weights.

    Raises:
        ConfigError: both a variant and a name of timm's.
    """
    variant, named = getattr(config, family.key), getattr(config, "model_name", None)
    if named is not None and variant != family.default:
        raise ConfigError(f"encoder: give {family.key} or model_name, not both: found {variant} and {named}")
    return PlainEncoder(named or family.models[variant], config.pyramid_channels)


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register every plain transformer of the table."""
    for family in PLAIN_FAMILIES:
        register(
            EncoderPlugin(
                name=family.name,
                summary=family.summary,
                config=section_of(family, VitSection if family.name == "vit" else PlainSection),
                build=partial(build, family),
                load_pretrained=load_pretrained,
            )
        )
