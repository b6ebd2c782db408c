"""Weights in the hub's files: .safetensors, or torch's .bin read without running any code; in one file or in shards."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from segdeploy.errors import MissingPartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
CONFIG_FILE = "config.json"
_DEEPEST = 32
_CODE = "unsupported global"
"""What torch says, in capitals or not, of a file that would run code."""
_HELD_AS = ("state_dict", "model_state_dict", "model")
"""Keys of trainers' checkpoints (Lightning's and timm's, PyTorch's tutorials', torchvision's) that hold the weights."""
_TORCH_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".tar")  # ".pth.tar" is timm's


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, or of a folder of `save_pretrained`; on the CPU, in the types of the file.

    Raises:
        MissingPartError: no such file or folder, none of the known names in the folder, or a file that is damaged or
            holds something else than tensors by name.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(path):
        tensors |= _read(file)
    return tensors


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingPartError(f"{path}: no such file or folder")
    for name in (SAFETENSORS, TORCH):
        if (path / name).is_file():
            return [path / name]
        if (index := path / f"{name}.index.json").is_file():
            return [path / shard for shard in _shards(index)]
    found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
    raise MissingPartError(f"{path}: expected {SAFETENSORS} or {TORCH} in the folder, found {found}")


def _shards(index: Path) -> list[str]:
    content = read_json(index)
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise MissingPartError(f"{index}: expected an index of weight files (weight_map), found something else")
    shards = sorted(set(named.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise MissingPartError(f"{index}: expected names of files beside it, found {shard!r}")
        if not (index.parent / shard).is_file():
            raise MissingPartError(f"{index}: names {shard}, which is not there; copy the whole folder")
    return shards


def read_json(file: Path) -> Any:
    """What a JSON file holds, whoever wrote it.

    Raises:
        MissingPartError: it is no JSON, cannot be read, or is nested deeper than any that a library writes.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as e:
        raise MissingPartError(f"{file}: not a JSON file: {str(e).splitlines()[0]}") from e
    except RecursionError as e:
        raise MissingPartError(f"{file}: not a JSON file of a model: nested too deeply") from e
    if not _is_shallow(content, _DEEPEST):
        raise MissingPartError(f"{file}: not a JSON file of a model: nested too deeply")
    return content


def _is_shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not inner or (levels > 0 and all(_is_shallow(item, levels - 1) for item in inner))


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix not in (".safetensors", *_TORCH_ENDINGS):
        raise MissingPartError(f"{file}: expected a .safetensors file, or torch's {', '.join(_TORCH_ENDINGS)}")
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # damaged files raise errors without a common base
        if isinstance(e, pickle.UnpicklingError) and _CODE in str(e).lower():
            raise MissingPartError(
                f"{file}: expected tensors by name, and nothing that only running code can read; where the network can "
                "be made, save them alone: torch.save(network.state_dict(), FILE)"
            ) from e
        first = (str(e).splitlines() or [""])[0]
        raise MissingPartError(f"{file}: cannot be read as weights ({type(e).__name__}: {first[:120]})") from e
    held = tensors if isinstance(tensors, dict) else {}
    said = f"a dict of {', '.join(map(str, list(held)[:5]))}" if held else type(tensors).__name__
    for found in (held, *(held[key] for key in _HELD_AS if key in held)):
        if not isinstance(found, dict) or not any(isinstance(t, Tensor) for t in found.values()):
            continue
        others = [(k, t) for k, t in found.items() if not isinstance(t, Tensor) or not isinstance(k, str)]
        if not others:
            return found
        said = f"{type(others[0][1]).__name__} under {others[0][0]!r}"
    raise MissingPartError(f"{file}: expected tensors by name (a state dict), found {said}")


def fit(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name_in_file: Callable[[str], str]
) -> dict[str, Tensor]:
    """`tensors` of a file under the names of `wanted`, a module's state: each one used, each one found.

    `name_in_file` turns a name of ours into the file's. A linear layer's weight serves a 1x1 convolution.

    Raises:
        MissingPartError: names that are missing or too many, or tensors of another shape; one line says how many.
    """
    state, missing, misshapen = {}, [], []
    left = set(tensors)
    for ours, like in wanted.items():
        theirs = name_in_file(ours)
        left.discard(theirs)
        if (tensor := tensors.get(theirs)) is None:
            missing.append(theirs)
            continue
        fitted = tensor[:, :, None, None] if tensor.ndim == 2 and like.ndim == 4 else tensor
        if fitted.shape != like.shape:
            misshapen.append(f"{theirs} is {_shape(tensor)}, expected {_shape(like)}")
        state[ours] = fitted
    said = [
        f"{len(found)} {what}, such as {found[0]}"
        for found, what in ((missing, "missing"), (misshapen, "of another shape"), (sorted(left), "too many"))
        if found
    ]
    if said:
        raise MissingPartError(f"its tensors are not those of this network: {'; '.join(said)}")
    return state


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
