"""What `segdeploy plugins list` and `show` say, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from segdeploy.plugin import attempt, registry
from segdeploy.plugin.manager import KINDS, Kind, kind_of, load

if TYPE_CHECKING:
    from collections.abc import Collection

    from segdeploy.plugin.distributions import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One plugin, or an entry point that failed.

    `kind` is "?" for an entry point that failed before it could say what it holds. `state`: "ok"; "unavailable", a
    backend whose engine is not here; or "failed". `reason` is one line, `detail` the traceback. `seconds`: import
    and registration of its whole entry point. `engine`: version of a backend's engine.
    """

    name: str
    kind: str
    owner: Owner
    state: Literal["ok", "unavailable", "failed"] = "ok"
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    engine: str = ""

    def as_json(self) -> dict[str, Any]:
        """Its fields, the owner's among them."""
        fields = asdict(self)
        return {"name": fields.pop("name"), "kind": fields.pop("kind"), **fields.pop("owner"), **fields}

    def said(self) -> str:
        """The state in a few words."""
        if self.state != "ok":
            return self.reason
        slow = self.seconds > attempt.SLOW_SECONDS and not self.owner.ours  # see attempt.warn_if_slow
        return f"ok {self.engine}".strip() + (f", {self.seconds:.1f} s to load" if slow else "")


def rows(reserved: Collection[str] = ()) -> list[Row]:
    """Every plugin and every failed entry point, by kind and name.

    `reserved`: names of segdeploy's own commands, which no plugin replaces.
    """
    found = [_row(kind, name, reserved) for kind in KINDS for name in registry.catalogue(kind).plugins]
    order = [*KINDS, "?"]
    return sorted([*found, *_failed()], key=lambda row: (order.index(row.kind), row.name, str(row.owner)))


def _row(kind: Kind, name: str, reserved: Collection[str] = ()) -> Row:
    known = registry.catalogue(kind)
    owner = known.owners[name]
    seconds = known.seconds[owner.entry_point]
    if kind == "command" and name in reserved:
        reason = "never called: segdeploy has a command of that name"
        return Row(name=name, kind=kind, owner=owner, state="failed", reason=reason, seconds=seconds)
    if kind != "backend":
        return Row(name=name, kind=kind, owner=owner, seconds=seconds)
    ready = known.plugins[name].available()
    if ready.ok:
        return Row(name=name, kind=kind, owner=owner, seconds=seconds, engine=ready.version)
    reason = ready.reason or "not available here"
    return Row(name=name, kind=kind, owner=owner, state="unavailable", reason=reason, seconds=seconds)


def _failed() -> list[Row]:
    """Failures of all kinds; one row for an entry point without a kind that fails alike whenever it is loaded."""
    found: dict[tuple[Owner, str], Row] = {}
    for kind in KINDS:
        for f in registry.catalogue(kind).failures:
            seen = (f.owner, f.reason) in found
            found[f.owner, f.reason] = Row(
                name=f.owner.entry_point,
                kind="?" if seen else kind,
                owner=f.owner,
                state="failed",
                reason=f.reason,
                detail=f.detail,
            )
    return [*found.values(), *_idle({owner for owner, _ in found})]


def _idle(failed: set[Owner]) -> list[Row]:
    """Entry points without a kind that load and hold nothing: most likely a forgotten @hookimpl."""
    known = [registry.catalogue(kind) for kind in KINDS]
    useful = failed | {owner for k in known for owner in k.owners.values()}
    idle = [o for o in load("command").owners.values() if kind_of(o) is None and o not in useful]
    reason = "registers nothing: expected a function under @hookimpl; plugins/README.md names the hooks"
    return [Row(name=o.entry_point, kind="?", owner=o, state="failed", reason=reason) for o in idle]


def holders(name: str) -> list[dict[str, Any]]:
    """The plugins of that name, of whatever kind: the fields of `Row`, `summary`, and `schema` or `artifact`.

    Raises:
        MissingPartError: there is none; it names the failed plugins that may hold it.
    """
    found = []
    for kind in KINDS:
        plugin = registry.catalogue(kind).plugins.get(name)
        if plugin is None:
            continue
        about = _row(kind, name).as_json()
        if kind == "command":
            found.append(about | {"summary": plugin.get_short_help_str(limit=200)})
        elif kind == "backend":
            found.append(about | {"summary": plugin.summary, "artifact": plugin.artifact})
        elif kind == "tracker":
            found.append(about | {"summary": plugin.summary})
        else:
            found.append(about | {"summary": plugin.summary, "schema": plugin.config.model_json_schema()})
    if not found:
        raise registry.missing(KINDS, name)
    return found
