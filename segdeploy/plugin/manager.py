"""Finds and loads plugins; one that fails is kept with its reason and never stops the others."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import Literal

import pluggy

from segdeploy.plugin import hookspecs

Kind = Literal["encoder", "decoder", "backend", "command"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "backend", "command")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Where a plugin comes from."""

    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A plugin that could not be loaded, and why, in one line."""

    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The plugins of one kind: modules with their owners, and what failed."""

    manager: pluggy.PluginManager
    owners: dict[str, Owner]
    failures: tuple[Failure, ...]


@cache
def load(kind: Kind) -> Loaded:
    """Load every entry point of the group that may hold plugins of `kind`.

    `SEGDEPLOY_PLUGINS=a,b` limits third parties' entry points to those names (segdeploy's own always
    load); `SEGDEPLOY_TRACE_PLUGINS=1` prints each hook call to standard error.
    """
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    if os.environ.get("SEGDEPLOY_TRACE_PLUGINS") == "1":
        manager.trace.root.setwriter(sys.stderr.write)
        manager.enable_tracing()
    only = os.environ.get("SEGDEPLOY_PLUGINS")
    allowed = None if only is None else {n.strip() for n in only.split(",")}
    owners: dict[str, Owner] = {}
    failures: list[Failure] = []
    for point in _entry_points(kind):
        dist = point.dist
        owner = Owner(
            entry_point=point.name,
            distribution=dist.name if dist else "unknown",
            version=dist.version if dist else "unknown",
        )
        if allowed is not None and owner.distribution != "segdeploy" and point.name not in allowed:
            continue
        if point.name in owners:
            failures.append(
                Failure(owner=owner, reason=f"the entry point {point.name!r} is taken by {owners[point.name]}")
            )
            continue
        try:
            manager.register(point.load(), name=point.name)
            manager.check_pending()
        except (Exception, SystemExit) as e:  # a plugin may fail in any way, and none may stop the others
            manager.unregister(name=point.name) if manager.has_plugin(point.name) else None
            failures.append(Failure(owner=owner, reason=_why(e)))
            continue
        owners[point.name] = owner
    return Loaded(manager, owners, tuple(failures))


def _entry_points(kind: Kind) -> list[importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=hookspecs.GROUP)
    other = tuple(f"{k}." for k in KINDS if k != kind)
    mine = [p for p in points if not p.name.startswith(other)]
    # segdeploy's own come first, so that a newcomer, not we, is refused when it takes one of our names.
    return sorted(mine, key=lambda p: (p.dist is None or p.dist.name != "segdeploy", p.name))


def _why(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in ("torch", "timm", "torchvision"):
        return f"needs {error.name}: pip install 'segdeploy[train]'"
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"
