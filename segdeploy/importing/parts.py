"""What every reader needs: a part with its owner's name, and weights that fit the network that was described."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from segdeploy.errors import ConfigError, ModelError
from segdeploy.importing.imported import Imported
from segdeploy.model.segmenter import build
from segdeploy.model.spec import ModelSpec, Part
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from segdeploy.plugin.manager import Kind

ONE_LOGIT = (
    "the one logit of the original becomes two classes: the first has the logit 0, so that the second wins where "
    "the original's is above 0, which is where its sigmoid is above 0.5"
)


def part_of(kind: Kind, name: str, config: dict[str, Any], source: Path | str) -> Part:
    """An encoder or decoder with all its keys, as a training writes it.

    Raises:
        MissingPartError: it is not installed; ModelError: `source` asks for what the part's keys do not allow.
    """
    section = (registry.encoder if kind == "encoder" else registry.decoder)(name).config
    try:
        checked = section.model_validate_json(json.dumps(config))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"{source}: {kind} {name}: {key}: {first['msg']}, found {first['input']!r}") from e
    owner = registry.catalogue(kind).owners[name]
    return Part(
        name=name, config=checked.model_dump(mode="json"), distribution=owner.distribution, version=owner.version
    )


def fitted(spec: ModelSpec, state: dict[str, Tensor], notes: tuple[str, ...], source: Path | str) -> Imported:
    """The weights in float32 and in the shapes of the network: a linear layer may be a 1x1 convolution there.

    The normalisation becomes that of the encoder.

    Raises:
        ModelError: weights that are missing, left over, or of another shape; or a network that cannot be built.
    """
    try:
        model = build(spec)
    except ConfigError as e:
        raise ModelError(f"{source}: {e}") from e
    wanted = model.state_dict()
    shaped = {name: _shaped(tensor, wanted.get(name)) for name, tensor in state.items()}
    said = [
        f"{len(names)} {what}, such as {names[0]}"
        for what, names in (
            ("missing", sorted(set(wanted) - set(shaped))),
            ("left over", sorted(set(shaped) - set(wanted))),
            ("of another shape", [n for n, t in sorted(shaped.items()) if n in wanted and t.shape != wanted[n].shape]),
        )
        if names
    ]
    if said:
        raise ModelError(f"{source}: the weights are not those of the network that is described: {'; '.join(said)}")
    norm = {key: tuple(getattr(model.encoder, key)) for key in ("mean", "std") if hasattr(model.encoder, key)}
    spec = spec.model_copy(update={"preprocessing": spec.preprocessing.model_copy(update=norm)})
    return Imported(spec, shaped, notes)


def _shaped(tensor: Tensor, wanted: Tensor | None) -> Tensor:
    if wanted is not None and tensor.ndim == 2 and wanted.ndim == 4:
        tensor = tensor[:, :, None, None]
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
