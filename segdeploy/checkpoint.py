"""Weights and training state on disk: safetensors and JSON, one file per state, replaced in one step.

A file that is being written when the power goes never takes the place of the last good one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from segdeploy.errors import ModelError, SegdeployError, first_line
from segdeploy.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

_MODEL = "model."
_EMA = "ema."
_OPTIMIZER = "optimizer."
_RUN = "run."


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write the parameters and buffers of `model`; `about` goes into the file's header as JSON."""
    _save(path, dict(model.state_dict()), about)


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors by name; `about` goes into the file's header as JSON."""
    _save(path, tensors, about)


def load_weights(path: Path, model: nn.Module, *, optional: str | None = None) -> dict[str, Any]:
    """Read a file of `save_weights` into `model` in place; returns `about`.

    Tensors whose names begin with `optional` may be missing, left over or of another shape; the model keeps its own.

    Raises:
        ModelError: not such a file, or one whose names or shapes are not the model's.
    """
    tensors, about = _load(path)
    if optional is not None:
        own = {name: t for name, t in model.state_dict().items() if name.startswith(optional)}
        fits = {name for name, t in own.items() if name in tensors and tensors[name].shape == t.shape}
        tensors = own | {n: t for n, t in tensors.items() if n in fits or not n.startswith(optional)}
    _fill(model, tensors, path)
    return about


def is_finite(path: Path) -> bool:
    """Whether a file of `save_weights` holds no NaN and no infinity."""
    return all(bool(torch.isfinite(t).all()) for t in _load(path)[0].values())


def in_parts(tensor: Tensor) -> bool:
    """Whether each process has a part of it; what a DTensor alone has tells, without the import of its module."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may have a part, put together; then every process has to call this."""
    parts: Any = tensor
    return parts.full_tensor() if in_parts(tensor) else tensor


def training_state(
    model: nn.Module, ema: nn.Module | None, optimizer: torch.optim.Optimizer, *, keep: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_training_state` writes of them. Where processes share a network out, all of them have to call this;
    those that do not `keep` it get nothing of what is shared."""
    tensors = {f"{_MODEL}{name}": t for name, t in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"{_EMA}{name}": t for name, t in ema.state_dict().items()}
    state = optimizer.state_dict()
    numbers: dict[str, Any] = {}  # some rules count their steps outside of tensors
    for index, slots in state["state"].items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value
            elif value is not None:  # sgd without momentum
                numbers[f"{index}.{name}"] = value
    groups = [{k: v.item() if isinstance(v, torch.Tensor) else v for k, v in g.items()} for g in state["param_groups"]]
    return whole_tensors(tensors, keep=keep), {"param_groups": groups, "slots": numbers}


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Tensors of which each process may have a part, put together one after the other and brought to the CPU; every
    process has to call this. Without `keep`, only those that are whole anyway."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor)
        if complete is tensor:
            found[name] = tensor
        elif keep:
            found[name] = complete.cpu()
    return found


def save_training_state(
    path: Path,
    state: tuple[dict[str, Tensor], dict[str, Any]],
    progress: dict[str, Any],
    more: dict[str, Tensor] | None = None,
) -> None:
    """All that `load_training_state` needs to go on as if nothing had happened.

    Args:
        path: the file.
        state: of `training_state`.
        progress: how far the run is, JSON-ready.
        more: tensors of the run.
    """
    tensors, about = state
    _save(path, tensors | {f"{_RUN}{n}": t for n, t in (more or {}).items()}, {"progress": progress, **about})


def load_training_state(
    path: Path, model: nn.Module, ema: nn.Module | None, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fill model, average and optimiser; returns `progress` and `more`. Raises ModelError as `load_weights` does."""
    tensors, about = _load(path)
    _fill(model, {n.removeprefix(_MODEL): t for n, t in tensors.items() if n.startswith(_MODEL)}, path)
    if ema is not None:
        _fill(ema, {n.removeprefix(_EMA): t for n, t in tensors.items() if n.startswith(_EMA)}, path)
    slots: dict[int, dict[str, Any]] = {}
    held = {n.removeprefix(_OPTIMIZER): t for n, t in tensors.items() if n.startswith(_OPTIMIZER)}
    for name, value in (held | about.get("slots", {})).items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    groups = about["param_groups"]
    for group, own in zip(groups, optimizer.param_groups, strict=False):
        # Which kernels run is a matter of the device that it goes on with.
        group |= {key: own[key] for key in ("fused", "foreach", "capturable") if key in own}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, held_slots in slots.items():
        for slot, value in held_slots.items():
            if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape:
                held_slots[slot] = _share(value, parameters[index])  # no device need have room for all of it
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for slot, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                # The file knows no strides, and fused optimisers walk parameter and slot in one stride.
                state[slot] = torch.empty_like(parameter).copy_(value)
    return about["progress"], {n.removeprefix(_RUN): t for n, t in tensors.items() if n.startswith(_RUN)}


def _save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    ready = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(path) as part:
        try:
            save_file(ready, part, metadata={"about": json.dumps(about)})
        except SafetensorError as e:  # what it makes of a full disk
            raise SegdeployError(f"{path}: cannot be written: {first_line(e)}") from e


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as handle:
            about = json.loads((handle.metadata() or {}).get("about", "{}"))
            return {name: handle.get_tensor(name) for name in handle.keys()}, about  # noqa: SIM118
    except FileNotFoundError as e:
        raise ModelError(f"{path}: no such file") from e
    except (SafetensorError, OSError, ValueError) as e:
        raise ModelError(f"{path}: not a readable safetensors file: {e}") from e


def _share(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this process has of `like`; nothing is sent."""
    if not in_parts(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    spread: Any = like
    mesh = spread.device_mesh
    return distribute_tensor(tensor.to(mesh.device_type), mesh, spread.placements, src_data_rank=None)


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    try:
        model.load_state_dict({n: _share(t, own[n]) if n in own else t for n, t in tensors.items()})
    except RuntimeError as e:
        detail = str(e).splitlines()[1].strip() if len(str(e).splitlines()) > 1 else str(e)
        raise ModelError(f"{path}: the weights are not those of this model: {detail[:300]}") from e
