"""From the configuration to a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segdeploy.config import loss as keys
from segdeploy.data.scan import auto_class_weights
from segdeploy.errors import ConfigError
from segdeploy.train.losses.boundary import Boundary
from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.losses.dice import Dice
from segdeploy.train.losses.focal import Focal
from segdeploy.train.losses.lovasz import Lovasz
from segdeploy.train.losses.ohem import Ohem
from segdeploy.train.losses.weighted_sum import WeightedSum

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.classes import ClassMap
    from segdeploy.data.scan import ScanReport
    from segdeploy.train.losses.objective import Objective


def build_loss(config: keys.Losses, report: ScanReport) -> Objective:
    """The configured loss, or the weighted sum of several.

    Raises:
        ConfigError: see `class_weights`.
    """
    listed = config if isinstance(config, tuple) else (config,)
    losses = [_build(one, class_weights(one, report.classes, report)) for one in listed]
    if len(losses) == 1 and listed[0].weight == 1:
        return losses[0]
    return WeightedSum(losses, [one.weight for one in listed])


def _build(config: keys.Loss, weights: Tensor | None) -> Objective:
    match config:
        case keys.CrossEntropy():
            return CrossEntropy(weights, config.label_smoothing)
        case keys.Focal():
            return Focal(weights, config.gamma)
        case keys.Dice():
            return Dice(weights, config.smooth)
        case keys.Lovasz():
            return Lovasz(weights)
        case keys.Ohem():
            return Ohem(weights, config.threshold, config.min_kept)
        case keys.Boundary():
            return Boundary(weights, config.theta0, config.theta)


def class_weights(config: keys.Loss, classes: ClassMap, report: ScanReport) -> Tensor | None:
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
