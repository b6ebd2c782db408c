"""Finds and loads plugins; one that fails is kept with its reason and never stops the others."""

from __future__ import annotations

import difflib
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

import pluggy

from segdeploy.plugin import hookspecs
from segdeploy.plugin.attempt import Failure, attempt, one_line
from segdeploy.plugin.distributions import Offer, Owner, canonical, offers, refused, unmet
from segdeploy.plugin.extras import EXTRAS

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

Kind = Literal["encoder", "decoder", "backend", "command", "tracker"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "backend", "command", "tracker")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The modules of one kind: owner, and seconds that the import took, by entry point; and what failed."""

    manager: pluggy.PluginManager
    owners: dict[str, Owner]
    failures: tuple[Failure, ...]
    seconds: dict[str, float]

    def trace(self, text: str) -> None:
        """Say a line of SEGDEPLOY_TRACE_PLUGINS=1."""
        self.manager.trace.root.get("plugins")(text)


@cache
def load(kind: Kind) -> Loaded:
    """Load every entry point of the group that may hold plugins of `kind`.

    `SEGDEPLOY_PLUGINS=a,b` limits third parties' to those entry points and distributions (segdeploy's own
    always load); `SEGDEPLOY_TRACE_PLUGINS=1` prints what is loaded and each hook call to standard error.
    """
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("SEGDEPLOY_TRACE_PLUGINS") == "1":
        manager.trace.root.setwriter(sys.stderr.write)
        manager.enable_tracing()
    owners: dict[str, Owner] = {}
    seconds: dict[str, float] = {}
    failures: list[Failure] = []
    found = offers()
    allowed = _allowed(found)
    for offer in (o for o in found if kind_of(o.owner) in (kind, None)):
        owner = offer.owner
        spent, failure = _load_one(manager, offer, allowed, owners)
        if failure is None:
            owners[owner.entry_point] = owner
            seconds[owner.entry_point] = spent
        else:
            failures.append(failure)
    loaded = Loaded(manager, owners, tuple(failures), seconds)
    for name, owner in owners.items():
        loaded.trace(f"{owner} was imported in {seconds[name]:.2f} s")
    for failure in failures:
        loaded.trace(f"{failure.owner} was not loaded: {failure.reason}")
    return loaded


def _load_one(
    manager: pluggy.PluginManager, offer: Offer, allowed: set[str] | None, owners: dict[str, Owner]
) -> tuple[float, Failure | None]:
    reason = _kept_out(offer, allowed, owners)
    if reason is not None or offer.point is None:
        return 0.0, Failure(owner=offer.owner, reason=reason or offer.error)
    point = offer.point

    def register() -> None:
        manager.register(point.load(), name=point.name)
        manager.check_pending()

    spent, failure = attempt(offer.owner, "being imported", register, partial(_why, offer))
    if failure is not None and manager.has_plugin(point.name):
        manager.unregister(name=point.name)
    return spent, failure


def kind_of(owner: Owner) -> Kind | None:
    """The kind that the prefix of an entry point's name declares; None for one that may hold any."""
    return next((kind for kind in KINDS if owner.entry_point.startswith(f"{kind}.")), None)


def _kept_out(offer: Offer, allowed: set[str] | None, owners: dict[str, Owner]) -> str | None:
    """Why an entry point is not even imported; None when it may be."""
    owner = offer.owner
    if owner.ours:
        return None
    if allowed is not None and not {owner.entry_point, canonical(owner.distribution)} & allowed:
        return "left out by SEGDEPLOY_PLUGINS"
    if owner.entry_point in owners:
        return f"the entry point {owner.entry_point!r} is taken by {owners[owner.entry_point]}"
    return refused(offer)


def _allowed(found: Sequence[Offer]) -> set[str] | None:
    """What SEGDEPLOY_PLUGINS names, entry points as written and distributions in canonical form; None: all."""
    said = os.environ.get("SEGDEPLOY_PLUGINS")
    if said is None:
        return None
    points = {o.owner.entry_point for o in found}
    distributions = {canonical(o.owner.distribution) for o in found}
    allowed = set()
    for name in filter(None, map(str.strip, said.split(","))):
        if name not in points and canonical(name) not in distributions:
            _warn_of_no_match(name, tuple(sorted(points | distributions)))
        allowed |= {name, canonical(name)}
    return allowed


@cache  # once, not for every kind
def _warn_of_no_match(name: str, known: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "; segdeploy plugins list says what there is"
    log.warning("SEGDEPLOY_PLUGINS: no entry point or distribution is named %r%s", name, hint)


def _why(offer: Offer, error: BaseException) -> str:
    """One line: what is to be installed where that is the cause, else the error's type and first line."""
    if isinstance(error, ModuleNotFoundError):
        top = (error.name or "").partition(".")[0]
        if top in EXTRAS["train"] and importlib.util.find_spec(top) is None:
            return f"needs segdeploy[train], {top} is not installed; pip install 'segdeploy[train]'"
    # Errors that a package of another version causes, or one that is not there.
    need = unmet(offer.distribution) if isinstance(error, ImportError | AttributeError) else None
    return f"{need} ({one_line(error)})" if need else one_line(error)
