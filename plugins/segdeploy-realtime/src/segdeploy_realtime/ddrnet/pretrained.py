"""The authors' checkpoints (https://github.com/ydhongHIT/DDRNet), by the names that their code gives to the layers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from segdeploy.errors import MissingPartError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from segdeploy_realtime.ddrnet.network import Variant

log = logging.getLogger(__name__)


def official_prefixes(variant: Variant) -> dict[str, str]:
    """Our prefix -> theirs, for every part of `DualResNet`."""
    names = {"stem.": "conv1.", "layer1.": "layer1.", "layer2.": "layer2.", "high.": "layer5_.0.", "low.": "layer5.0."}
    steps = {"fourth": "4"}
    for i in range(variant.third):
        steps[f"third.{i}"] = "3" if variant.third == 1 else f"3_{i + 1}"
    for ours, theirs in steps.items():
        names[f"{ours}.low."] = f"layer{theirs}."
        names[f"{ours}.high."] = f"layer{theirs}_."
        names[f"{ours}.compress."] = f"compression{theirs}."
        names[f"{ours}.down."] = f"down{theirs}."
    return names


def load_official(backbone: nn.Module, variant: Variant, path: Path) -> None:
    """The weights of `path` into a `DualResNet` in place; heads and classifiers in the file are passed over.

    Raises:
        MissingPartError: no such file, one that cannot be read safely, or one of another network.
    """
    found = _tensors(path)
    renamed = {}
    for ours, tensor in backbone.state_dict().items():
        prefix, theirs = next((p, t) for p, t in official_prefixes(variant).items() if ours.startswith(p))
        name = theirs + ours.removeprefix(prefix)
        if name not in found and ours.endswith(".num_batches_tracked"):
            continue  # old files lack the counter, which nothing reads
        shape = tuple(found[name].shape) if name in found else None
        if shape != tuple(tensor.shape):
            raise MissingPartError(
                f"encoder.weights: {path}: not a checkpoint of {variant.name}: {name} should be of shape "
                f"{tuple(tensor.shape)}, {'is missing' if shape is None else f'is {shape}'}"
            )
        renamed[ours] = found[name]
    backbone.load_state_dict(renamed, strict=False)
    log.info("%s: %d tensors loaded, %d passed over", path, len(renamed), len(found) - len(renamed))


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of the file, without the prefixes that wrappers leave."""
    if not path.is_file():
        raise MissingPartError(f"encoder.weights: {path}: no such file")
    try:
        content: Any
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # unpickling has no common base of errors
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise MissingPartError(
            f"encoder.weights: {path}: expected a .safetensors file, or a .pth file with nothing but tensors: "
            f"{first[:160]}"
        ) from e
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {_bare(str(name)): x for name, x in content.items() if isinstance(x, torch.Tensor)}


def _bare(name: str) -> str:
    while name.startswith(("module.", "model.")):
        name = name.partition(".")[2]
    return name
