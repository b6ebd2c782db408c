"""Rules about a backend: what it says, and what it refuses."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from segdeploy.conformance.rule import BrokenError, Found, Rule
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import Availability, registry
from segdeploy.plugin.distributions import canonical
from segdeploy.plugin.hookspecs import GROUP
from segdeploy.runtime.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.conformance.backend_subject import BackendSubject
    from segdeploy.conformance.find import Part

_REFUSAL = (MissingPartError, ModelError)
_NEW_MODULES = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
import segdeploy.bundle, segdeploy.runtime.runner, segdeploy.plugin.contract, numpy, PIL.Image, yaml, click, rich
before = set(sys.modules)
importlib.import_module(sys.argv[2])
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))))
"""


def check_available(subject: BackendSubject) -> Found:
    """What `available` says, and what importing the module brings in."""
    available = _own(subject.part.plugin.available)
    with subject.blame("available"):
        ready = available()
    if not isinstance(ready, Availability):
        raise BrokenError(f"available: expected an Availability, found {type(ready).__name__}")
    if not ready.ok and not ready.reason:
        raise BrokenError("available: not ok, and no reason; a user reads what to install or to do")
    if ready.ok and not ready.version:
        raise BrokenError("available: ok, and no version; reports say which engine ran")
    name = _module(subject.part)
    words = [sys.executable, "-c", _NEW_MODULES, json.dumps(sys.path), name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BrokenError(f"a new process cannot import {name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    brought = [m for m in json.loads(done.stdout) if m not in ("segdeploy", name.split(".")[0])]
    if brought:
        raise BrokenError(f"importing {name} imports {', '.join(brought)}", imported=brought)
    return Found(f"ok, {ready.version}" if ready.ok else f"not here: {ready.reason}", {"version": ready.version})


def _own(available: Callable[[], Any]) -> Callable[[], Any]:
    """The plugin's function: the registry's, around it, calls a backend that fails unavailable."""
    if isinstance(available, functools.partial) and available.func.__module__ == registry.__name__:
        own: Callable[[], Any] = available.args[-1]
        return own
    return available


def _module(part: Part) -> str:
    """The module that is loaded for the part, by its entry point."""
    for point in importlib.metadata.entry_points(group=GROUP, name=part.owner.entry_point):
        if point.dist is not None and canonical(point.dist.name) == canonical(part.owner.distribution):
            return point.module
    return part.plugin.available.__module__  # type: ignore[no-any-return]


def check_open(subject: BackendSubject) -> Found:
    """A runner comes, and goes."""
    with subject.opened() as runner:
        if not isinstance(runner, Runner):
            raise BrokenError(f"open: expected a segdeploy.runtime.runner.Runner, found {type(runner).__name__}")
    return Found(subject.part.plugin.artifact)


def check_describe(subject: BackendSubject) -> Found:
    """The facts that stand in every report."""
    with subject.opened() as runner, subject.blame("describe"):
        said: dict[str, Any] = runner.describe()
        json.dumps(said, allow_nan=False)
    missing = [k for k in ("backend", "provider", "precision", "threads", "versions") if not said.get(k)]
    if missing:
        raise BrokenError(f"describe: has no {', '.join(missing)}: {said}")
    if said["backend"] != subject.part.name:
        raise BrokenError(f"describe: backend is {said['backend']!r}, its name is {subject.part.name!r}")
    if said["precision"] != "fp32":
        raise BrokenError(f"describe: precision is {said['precision']!r}, the bundle's file is fp32")
    if not isinstance(said["versions"], dict):
        raise BrokenError(f"describe: versions: expected package names and versions, found {said['versions']!r}")
    return Found(f"{said['provider']}, {said['versions']}", {"describe": said})


def check_threads(subject: BackendSubject) -> Found:
    """One thread and two; a count that cannot be kept may be refused, but not be replaced."""
    kept = []
    for asked in (1, 2):
        try:
            with subject.opened(_REFUSAL, threads=asked) as runner, subject.blame("describe"):
                used = runner.describe()["threads"]
        except _REFUSAL:
            continue
        if used != asked:
            raise BrokenError(f"asked for {asked} threads, describe says {used}")
        kept.append(str(asked))
    return Found(f"{' and '.join(kept)} kept")


def check_refuses(subject: BackendSubject) -> Found:
    """Options that no backend knows."""
    for key in ("precision", "device", "variant"):
        try:
            with subject.opened(_REFUSAL, **{key: "no-such"}):
                pass
        except _REFUSAL:
            continue
        raise BrokenError(f"{key} 'no-such' is taken; a report would say what did not run")
    return Found()


RULES = (
    Rule(
        name="available",
        kinds=("backend",),
        sentence="available says whether it can run, with reason or version; importing the module imports no engine.",
        fix="Return Availability(ok=, reason=, version=); import the engine inside available and open alone.",
        check=check_available,
    ),
    Rule(
        name="open",
        kinds=("backend",),
        sentence="open gives a Runner on a bundle that holds its kind of file.",
        fix="Derive it from segdeploy.runtime.runner.Runner; find the file by bundle.find(artifact, precision).",
        check=check_open,
        needs=("available",),
    ),
    Rule(
        name="describe",
        kinds=("backend",),
        sentence="describe says backend, provider, precision, threads and versions, ready for JSON.",
        fix="Say what really runs, read from the engine where it can be, in plain strings and numbers.",
        check=check_describe,
        needs=("open",),
    ),
    Rule(
        name="threads",
        kinds=("backend",),
        sentence="The threads that were asked for are the threads that describe says, or are refused.",
        fix="Hand options.thread_count to the engine, and describe the engine's own setting.",
        check=check_threads,
        needs=("describe",),
    ),
    Rule(
        name="refuses",
        kinds=("backend",),
        sentence="A precision, device or variant that it does not have raises MissingPartError or ModelError.",
        fix="Compare each option with what the backend has, before the engine is opened; never fall back.",
        check=check_refuses,
        needs=("open",),
    ),
)
