"""What every reader needs: a part with its owner's name, and weights that fit the network that was described."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy.encoders.hub_files import fit
from segdeploy.errors import ConfigError, MissingPartError, ModelError
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
        raise ModelError(f"{source}: {kind} {name}: {first_of(e)}") from e
    owner = registry.catalogue(kind).owners[name]
    return Part(
        name=name, config=checked.model_dump(mode="json"), distribution=owner.distribution, version=owner.version
    )


def first_of(error: ValidationError) -> str:
    """The first mistake in one line: its key, what was expected, what was found."""
    first = error.errors(include_url=False)[0]
    said = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return said
    return f"{'.'.join(map(str, first['loc']))}: {said}, found {repr(first['input'])[:60]}"


def fitted(spec: ModelSpec, state: dict[str, Tensor], notes: tuple[str, ...], source: Path | str) -> Imported:
    """`spec` and `state`, which has its network's names already, in float32; see `fit`.

    The normalisation becomes that of the encoder.

    Raises:
        ModelError: weights that are missing, left over, or of another shape; or a network that cannot be built.
    """
    try:
        model = build(spec)
    except ConfigError as e:
        raise ModelError(f"{source}: {e}") from e
    try:
        shaped = fit(state, model.state_dict(), str)
    except MissingPartError as e:
        raise ModelError(f"{source}: {e}") from e
    floats = {name: t.float() if t.is_floating_point() else t for name, t in shaped.items()}
    norm = {key: tuple(getattr(model.encoder, key)) for key in ("mean", "std") if hasattr(model.encoder, key)}
    spec = spec.model_copy(update={"preprocessing": spec.preprocessing.model_copy(update=norm)})
    return Imported(spec, floats, notes)
