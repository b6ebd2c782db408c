"""Whether an optional part of segdeploy is installed, asked without importing it."""

from __future__ import annotations

import importlib.util

from segdeploy.errors import MissingPartError

EXTRAS = {"train": ("torch", "torchvision", "timm", "safetensors", "onnx", "onnxscript", "tensorboard")}


def require(extra: str) -> None:
    """MissingPartError with the pip line where a package of the extra is not installed."""
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPartError(f"this command needs {', '.join(missing)}; pip install 'segdeploy[{extra}]'")
