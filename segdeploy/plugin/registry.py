"""Plugins by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from typing import Any

from segdeploy.errors import MissingPartError
from segdeploy.plugin.contract import BackendPlugin, DecoderPlugin, EncoderPlugin
from segdeploy.plugin.manager import Failure, Kind, Owner, load

_TYPES: dict[Kind, type] = {"encoder": EncoderPlugin, "decoder": DecoderPlugin, "backend": BackendPlugin}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything registered of one kind: plugin and owner by name, and what failed to load."""

    plugins: dict[str, Any]
    owners: dict[str, Owner]
    failures: tuple[Failure, ...]


@cache
def catalogue(kind: Kind) -> Catalogue:
    """Load and register all plugins of `kind`, once."""
    loaded = load(kind)
    plugins: dict[str, Any] = {}
    owners: dict[str, Owner] = {}
    failures = list(loaded.failures)
    hook_name = f"segdeploy_register_{kind}s"
    modules = dict(loaded.manager.list_name_plugin())
    for entry_point, owner in loaded.owners.items():

        def register(plugin: EncoderPlugin | DecoderPlugin | BackendPlugin, owner: Owner = owner) -> None:
            if type(plugin) is not _TYPES[kind]:
                raise TypeError(f"expected {_TYPES[kind].__name__}, got {type(plugin).__name__}")
            if plugin.name in plugins:
                raise ValueError(f"the {kind} name {plugin.name!r} is taken by {owners[plugin.name]}")
            plugins[plugin.name] = plugin
            owners[plugin.name] = owner

        # One plugin's implementations at a time, so that each name knows its owner.
        others = [m for name, m in modules.items() if name != entry_point]
        call = loaded.manager.subset_hook_caller(hook_name, remove_plugins=others)
        try:
            call(register=register)
        except Exception as e:
            failures.append(Failure(owner=owner, reason=f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"))
    return Catalogue(plugins, owners, tuple(failures))


def encoder(name: str) -> EncoderPlugin:
    """The encoder of that name; MissingPartError when there is none."""
    found: EncoderPlugin = _get("encoder", name)
    return found


def decoder(name: str) -> DecoderPlugin:
    """The decoder of that name; MissingPartError when there is none."""
    found: DecoderPlugin = _get("decoder", name)
    return found


def backend(name: str) -> BackendPlugin:
    """The backend of that name; MissingPartError when there is none."""
    found: BackendPlugin = _get("backend", name)
    return found


def _get(kind: Kind, name: str) -> Any:
    known = catalogue(kind)
    if name in known.plugins:
        return known.plugins[name]
    near = difflib.get_close_matches(name, known.plugins, 1, 0.5)
    said = f"no {kind} is named {name!r}"
    said += f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known.plugins)) or 'none'}"
    for failure in known.failures:
        said += f"; {failure.owner} may hold it, but did not load: {failure.reason}"
    raise MissingPartError(said)
