"""What training minimises; one module per loss."""

from segdeploy.train.losses.build import build_loss, class_weights
from segdeploy.train.losses.objective import Objective

__all__ = ["Objective", "build_loss", "class_weights"]
