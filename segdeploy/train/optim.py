"""The update rule, and which parameters it moves at which rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from segdeploy.checkpoint import in_parts
from segdeploy.errors import MissingPartError
from segdeploy.model.segmenter import backbone_of
from segdeploy.train.layers import layers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from segdeploy.config.optimizer import Optimizer
    from segdeploy.config.trainer import Trainer

OF_TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}
_FUSED = frozenset({"adamw", "adam", "sgd", "adagrad"})
_BY_TRUST = frozenset({"lamb", "lars"})


def build_optimizer(model: nn.Module, config: Trainer) -> torch.optim.Optimizer:
    """The configured rule over all trainable parameters, grouped as `parameter_groups` says.

    The loop sets `group["lr"] = rate * group["lr_scale"]` for each group.

    Raises:
        MissingPartError: a rule that the installed timm does not have.
        ConfigError: see `layers_of`.
    """
    rule = config.optimizer
    groups = parameter_groups(model, rule)
    for group in groups:
        group["lr"] = config.peak_learning_rate * group["lr_scale"]
    options = rule.settings
    if rule.type in OF_TORCH:
        if rule.type in _FUSED and _has_kernel(rule.type, groups[0]["params"][0]):
            options["fused"] = True
        return OF_TORCH[rule.type](groups, lr=config.peak_learning_rate, **options)
    import timm
    from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]

    if rule.type not in list_optimizers():
        raise MissingPartError(f"trainer.optimizer.type: timm {timm.__version__} has no {rule.type}; update it")
    if rule.type == "lamb":
        options["max_grad_norm"] = None  # trainer.gradient_clipping says it
    made: torch.optim.Optimizer = create_optimizer_v2(groups, rule.type, lr=config.peak_learning_rate, **options)
    return made


def _has_kernel(rule: str, parameter: nn.Parameter) -> bool:
    """Whether torch has one kernel for all parameters: on the CPU too, but adagrad's is not in every torch for other
    devices, and of weights that processes share out only Adam's are."""
    if in_parts(parameter):
        return rule in ("adam", "adamw")
    return rule != "adagrad" or parameter.device.type == "cpu"


def parameter_groups(model: nn.Module, config: Optimizer) -> list[dict[str, Any]]:
    """Trainable parameters of one `lr_scale` and one `weight_decay`: one-dimensional ones (norms, biases) have none.

    With `layer_decay` or `encoder_lr_scale` the scale of a parameter of the encoder's backbone is
    encoder_lr_scale * layer_decay ** (layers behind it in the encoder, and itself); it is 1 for all others.
    """
    decay = (0.01 if config.type == "adamw" else 0.0) if config.weight_decay is None else config.weight_decay
    scales = _scales(model, config)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((scales.get(parameter, 1.0), parameter.ndim > 1), []).append(parameter)
    made: list[dict[str, Any]] = []
    for scale, matrices in sorted(groups, key=lambda key: (key[0], not key[1])):
        made.append(
            {
                "params": groups[scale, matrices],
                "weight_decay": decay if matrices else 0.0,
                "lr_scale": scale,
            }
        )
        if config.type in _BY_TRUST:  # timm's would else be plain where nothing decays
            made[-1]["always_adapt"] = matrices
    return made


def _scales(model: nn.Module, config: Optimizer) -> dict[nn.Parameter, float]:
    """Of the parameters that do not learn at the plain rate."""
    if config.layer_decay is None and config.encoder_lr_scale == 1:
        return {}
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    if config.layer_decay is None:
        return dict.fromkeys(backbone_of(encoder).parameters(), config.encoder_lr_scale)
    layers = layers_of(encoder)
    depth = max(layers.values(), default=0) + 1
    return {p: config.encoder_lr_scale * config.layer_decay ** (depth - layer) for p, layer in layers.items()}
