"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.scan import ScanReport, auto_class_weights

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.config.schema import Loss


def build_loss(config: Loss, report: ScanReport) -> nn.CrossEntropyLoss:
    """Cross-entropy of logits (N, C, H, W) and targets (N, H, W) int64, mean over pixels that are not 255."""
    return nn.CrossEntropyLoss(
        weight=class_weights(config, report.classes, report),
        ignore_index=IGNORE,
        label_smoothing=config.label_smoothing,
    )


def class_weights(config: Loss, classes: ClassMap, report: ScanReport) -> Tensor | None:
    """(C,) float32 from a list, from names, or from the class frequencies; None: all equal."""
    weights = config.class_weights
    if weights is None:
        return None
    if weights == "auto":
        return torch.from_numpy(auto_class_weights(report)).float()
    if isinstance(weights, dict):
        return torch.tensor([weights[name] for name in classes.names], dtype=torch.float32)
    return torch.tensor(weights, dtype=torch.float32)
