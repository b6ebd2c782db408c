"""How deep each parameter of an encoder lies: what layer-wise decay of the learning rate goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from segdeploy.encoders.pretrained import TimmModel
from segdeploy.errors import ConfigError, first_line
from segdeploy.model.segmenter import backbone_of, features_of

if TYPE_CHECKING:
    from torch import nn


def layers_of(encoder: nn.Module) -> dict[nn.Parameter, int]:
    """The layer of each parameter of the encoder's backbone, from 0, the shallowest.

    Of a timm model the layers are timm's own (`group_matcher`, as in its `param_groups_layer_decay`), mostly one per
    block. Of any other encoder they are its levels: a parameter belongs to the finest map that depends on it.

    Raises:
        ConfigError: an encoder that is not timm's and cannot take a small square image, which would show its levels.
    """
    return _layers_of_timm(encoder) or _levels(encoder)


def _layers_of_timm(encoder: nn.Module) -> dict[nn.Parameter, int]:
    """Empty where timm does not say it."""
    if not isinstance(encoder, TimmModel):
        return {}
    import timm
    from timm.models import group_parameters

    own = dict(encoder.body.named_parameters())
    whole: Any = next((m for m in encoder.body.modules() if hasattr(m, "group_matcher")), None)
    if whole is None or len(list(whole.parameters())) != len(own):
        # As a pyramid the model has lost its matcher, and some of its modules their dots: stages_0 for stages.0.
        with torch.random.fork_rng(devices=[]):
            whole = timm.create_model(encoder.model_name)
    if not hasattr(whole, "group_matcher"):
        return {}
    layers = {
        form: layer
        for name, layer in group_parameters(whole, whole.group_matcher(coarse=False), reverse=True).items()
        for form in (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}")
    }
    return {own[name]: layers[name] for name in own} if own.keys() <= layers.keys() else {}


def _levels(encoder: nn.Module) -> dict[nn.Parameter, int]:
    left = [p for p in backbone_of(encoder).parameters() if p.requires_grad]
    side = max(64, 2 * max(feature.stride for feature in features_of(encoder)))
    training = encoder.training
    encoder.eval()
    try:
        with torch.enable_grad():
            maps = encoder(torch.zeros(1, 3, side, side, device=next(encoder.parameters()).device))
    except (RuntimeError, AssertionError, ValueError, IndexError) as e:
        raise ConfigError(
            f"trainer.optimizer.layer_decay: the encoder's layers cannot be told from a {side}x{side} image "
            f"({first_line(e)}); use encoder_lr_scale instead"
        ) from e
    finally:
        encoder.train(training)
    layers: dict[nn.Parameter, int] = {}
    for level, features in enumerate(maps):
        if left and features.requires_grad:
            slopes = torch.autograd.grad(features.sum(), left, retain_graph=True, allow_unused=True)
            layers |= {p: level for p, slope in zip(left, slopes, strict=True) if slope is not None}
            left = [p for p in left if p not in layers]
    return layers | dict.fromkeys(left, len(maps) - 1)
