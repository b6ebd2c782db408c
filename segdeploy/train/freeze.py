"""Parameters that keep their values."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from segdeploy.errors import ConfigError
from segdeploy.model.segmenter import backbone_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from segdeploy.config.schema import RunConfig
    from segdeploy.model.segmenter import Segmenter


def freeze(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Switch the gradient off for every parameter in whose name one of the regular expressions is found.

    Call it before the optimiser is built, and `rest` after each `model.train()`.

    Returns:
        The names of these parameters, in the model's order.

    Raises:
        ConfigError: an expression that is found in no name, or nothing is left that learns.
    """
    patterns = tuple(patterns)
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, names, 1, 0.3) or names[:1]
            raise ConfigError(
                f"trainer.layers_to_freeze_regex: {pattern!r} is found in no parameter's name; "
                f"names are such as {', '.join(near)}"
            )
    found = [name for name in names if any(re.search(pattern, name) for pattern in patterns)]
    for name in found:
        model.get_parameter(name).requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("trainer.layers_to_freeze_regex: every parameter is frozen, so there is nothing to learn")
    return found


def freeze_configured(model: Segmenter, config: RunConfig) -> bool:
    """The encoder's backbone where it is not `trainable`, then what `layers_to_freeze_regex` names.

    Returns:
        Whether the backbone is frozen.

    Raises:
        ConfigError: see `freeze`.
    """
    frozen = not config.image.encoder.get("trainable", True)
    if frozen:
        backbone_of(model.encoder).requires_grad_(False)
    freeze(model, config.trainer.frozen_patterns)
    return frozen


def rest(model: nn.Module) -> None:
    """Put every part of which all parameters are frozen into `eval`: norms keep their statistics, nothing drops out."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
