"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.scan import ScanReport, auto_class_weights
from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.config.loss import Loss


def build_loss(config: Loss, report: ScanReport) -> nn.CrossEntropyLoss:
    """Cross-entropy of logits (N, C, H, W) and targets (N, H, W) int64, mean over pixels that are not 255."""
    return nn.CrossEntropyLoss(
        weight=class_weights(config, report.classes, report),
        ignore_index=IGNORE,
        label_smoothing=config.label_smoothing,
    )


def class_weights(config: Loss, classes: ClassMap, report: ScanReport) -> Tensor | None:
    """(C,) float32 from a list, from names, or from the class frequencies; None: all equal.

    Raises:
        ConfigError: not one weight for each class, or 0 for every class that the training masks show.
    """
    weights, names = config.class_weights, classes.names
    if weights is None:
        return None
    if weights == "auto":
        return torch.from_numpy(auto_class_weights(report)).float()
    if len(weights) != len(names) or (isinstance(weights, dict) and set(weights) != set(names)):
        found = ", ".join(map(str, weights))
        raise ConfigError(f"loss.class_weights: expected one weight for each of {', '.join(names)}; found {found}")
    given = [weights[name] for name in names] if isinstance(weights, dict) else list(weights)
    if not any(weight and pixels for weight, pixels in zip(given, report.pixels, strict=True)):
        raise ConfigError(
            "loss.class_weights: every class in the training masks has weight 0, so there is nothing to learn; "
            f"give a weight above 0 to one of {', '.join(n for n, p in zip(names, report.pixels, strict=True) if p)}"
        )
    return torch.tensor(given, dtype=torch.float32)
