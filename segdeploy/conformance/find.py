"""A name to the parts that go by it: a plugin's own name, or a distribution's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError
from segdeploy.plugin import registry
from segdeploy.plugin.distributions import canonical

if TYPE_CHECKING:
    from segdeploy.plugin.distributions import Owner
    from segdeploy.plugin.manager import Kind

KINDS: tuple[Kind, ...] = ("encoder", "decoder", "backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One registered plugin of one kind, and where it comes from."""

    kind: Kind
    name: str
    plugin: Any
    owner: Owner

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def all_parts(kinds: tuple[Kind, ...] = KINDS) -> list[Part]:
    """Everything registered, by kind and name."""
    return [
        Part(kind=kind, name=name, plugin=known.plugins[name], owner=known.owners[name])
        for kind in kinds
        for known in (registry.catalogue(kind),)
        for name in sorted(known.plugins)
    ]


def parts(name: str, kind: Kind | None = None) -> list[Part]:
    """The parts of that name, of every kind or of one; else all those of the distribution of that name.

    Raises:
        MissingPartError: there is none; the message names the plugins that failed to load and may hold it.
    """
    kinds = KINDS if kind is None else (kind,)
    known = all_parts(kinds)
    found = [part for part in known if part.name == name]
    found = found or [part for part in known if canonical(part.owner.distribution) == canonical(name)]
    if found:
        return found
    if broken := registry.installed_but_failed(kinds, name):
        raise MissingPartError(broken)
    names = {part.name for part in known} | {part.owner.distribution for part in known}
    near = difflib.get_close_matches(name, names, 1, 0.5)
    said = f"no {', '.join(kinds)} or distribution is named {name!r}"
    said += f"; did you mean {near[0]!r}?" if near else "; see segdeploy plugins list"
    raise MissingPartError(said + registry.may_hold(kinds))
