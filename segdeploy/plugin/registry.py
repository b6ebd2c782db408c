"""Plugins by name."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError
from segdeploy.plugin.attempt import Failure, attempt, one_line, warn_if_slow
from segdeploy.plugin.contract import (
    Availability,
    BackendPlugin,
    DecoderPlugin,
    EncoderPlugin,
    Section,
    TrackerPlugin,
)
from segdeploy.plugin.distributions import canonical
from segdeploy.plugin.manager import Kind, kind_of, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segdeploy.plugin.distributions import Owner

_TYPES: dict[Kind, type[Any]] = {
    "encoder": EncoderPlugin,
    "decoder": DecoderPlugin,
    "backend": BackendPlugin,
    "tracker": TrackerPlugin,
}
_FUNCTIONS: dict[Kind, tuple[str, ...]] = {"backend": ("available", "open"), "tracker": ("open",)}

# Names stand in YAML without quotes, where 1.5 and null are no strings, and in names of files.
_NAME = re.compile(r"(?!(?:null|true|false)\Z)[a-z][a-z0-9_.-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything registered of one kind: plugin and owner by name, what failed, and seconds by entry point.

    A command's plugin is its `click.Command`.
    """

    plugins: dict[str, Any]
    owners: dict[str, Owner]
    failures: tuple[Failure, ...]
    seconds: dict[str, float]


@cache
def catalogue(kind: Kind) -> Catalogue:
    """Load and register all plugins of `kind`, once. Plugins that fail are among `failures`; nothing is raised."""
    loaded = load(kind)
    known = Catalogue({}, {}, (), dict(loaded.seconds))
    failures = list(loaded.failures)
    hook_name = f"segdeploy_register_{kind}s"
    modules = dict(loaded.manager.list_name_plugin())
    for entry_point, owner in loaded.owners.items():

        def add(name: str, plugin: Any, owner: Owner = owner) -> None:
            if name in known.plugins:
                raise ValueError(f"the {kind} name {name!r} is taken by {known.owners[name]}")
            known.plugins[name] = plugin
            known.owners[name] = owner
            loaded.trace(f"{owner} registered the {kind} {name!r}")

        # One plugin's implementations at a time, so that each name knows its owner.
        others = [m for name, m in modules.items() if name != entry_point]
        hook = loaded.manager.subset_hook_caller(hook_name, remove_plugins=others)
        collect = _collect_commands if kind == "command" else partial(_collect, kind, owner)
        spent, failure = attempt(owner, "being registered", partial(collect, hook, add))
        known.seconds[entry_point] += spent
        warn_if_slow(owner, known.seconds[entry_point])
        if failure is None and kind_of(owner) == kind and owner not in known.owners.values():
            reason = f"registers no {kind}: expected a function {hook_name} under @hookimpl that registers at least one"
            failure = Failure(owner=owner, reason=reason)
        if failure is not None:
            failures.append(failure)
            loaded.trace(f"{owner} failed: {failure.reason}")
    return replace(known, failures=tuple(failures))


def _collect(kind: Kind, owner: Owner, hook: Callable[..., Any], add: Callable[[str, Any], None]) -> None:
    def register(plugin: EncoderPlugin | DecoderPlugin | BackendPlugin | TrackerPlugin) -> None:
        _check(kind, plugin)
        if isinstance(plugin, BackendPlugin):
            plugin = replace(plugin, available=partial(_available, owner, plugin.available))
        add(plugin.name, plugin)

    hook(register=register)


def _collect_commands(hook: Callable[..., Any], add: Callable[[str, Any], None]) -> None:
    import click

    group = click.Group()  # one of its own for each plugin: none can replace another's commands
    hook(cli=group)
    for name, command in group.commands.items():
        add(name, command)


def _check(kind: Kind, plugin: Any) -> None:
    """Refuse, when it is registered, what would only fail in a user's training.

    Raises:
        TypeError, ValueError: it is not what the contract says, in words for its author.
    """
    if type(plugin) is not _TYPES[kind]:
        raise TypeError(f"expected {_TYPES[kind].__name__}, got {type(plugin).__name__}")
    name = plugin.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a {kind}: expected a letter, then letters, digits, '_', '-' and '.', "
            "and not null, true or false"
        )
    for part in ("summary", "artifact") if kind == "backend" else ("summary",):
        if not isinstance(getattr(plugin, part), str):
            raise TypeError(f"{kind} {name}: expected a string as {part}, got {getattr(plugin, part)!r}")
    for part in _FUNCTIONS.get(kind, ("build",)):
        if not callable(getattr(plugin, part)):
            raise TypeError(f"{kind} {name}: expected a function as {part}, got {getattr(plugin, part)!r}")
    if kind in ("encoder", "decoder"):
        _check_config(f"{kind} {name}", plugin.config)
    if kind == "encoder" and plugin.load_pretrained is not None and not callable(plugin.load_pretrained):
        raise TypeError(
            f"{kind} {name}: expected a function or None as load_pretrained, got {plugin.load_pretrained!r}"
        )
    if kind == "decoder":
        patterns = plugin.keep_fp32
        if not isinstance(patterns, tuple) or not all(isinstance(pattern, str) for pattern in patterns):
            raise TypeError(f"{kind} {name}: expected a tuple of strings as keep_fp32, got {patterns!r}")


def _check_config(head: str, config: Any) -> None:
    if not (isinstance(config, type) and issubclass(config, Section)):
        raise TypeError(f"{head}: expected a subclass of Section as config, got {config!r}")
    try:
        config.model_json_schema()
    except Exception as e:  # what it cannot express cannot be written in YAML either
        raise TypeError(f"{head}: no JSON schema can be made of its config: {one_line(e)}") from e


def _available(owner: Owner, available: Callable[[], Availability]) -> Availability:
    """What a backend says of itself; where that fails it is unavailable, and other backends are still asked."""
    answers: list[Availability] = []

    def ask() -> None:
        answer = available()
        if not isinstance(answer, Availability):
            raise TypeError(f"expected Availability, got {type(answer).__name__}")
        answers.append(answer)

    _, failure = attempt(owner, "looking for its engine", ask)
    if failure is None:
        return answers[0]
    return Availability(ok=False, reason=f"{owner} cannot say whether it is available: {failure.reason}")


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


def tracker(name: str) -> TrackerPlugin:
    """The tracker of that name; MissingPartError when there is none."""
    found: TrackerPlugin = _get("tracker", name)
    return found


def _get(kind: Kind, name: str) -> Any:
    known = catalogue(kind)
    if name in known.plugins:
        return known.plugins[name]
    raise missing((kind,), name)


def missing(kinds: Sequence[Kind], name: str) -> MissingPartError:
    """The error that nothing of these kinds has that name: a near one, and the failed plugins that may hold it."""
    known = {n for kind in kinds for n in catalogue(kind).plugins}
    *first, last = kinds
    if broken := installed_but_failed(kinds, name):
        return MissingPartError(broken)
    said = f"no {', '.join(first)} or {last} is named {name!r}" if first else f"no {last} is named {name!r}"
    near = difflib.get_close_matches(name, known, 1, 0.5)
    said += f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known)) or 'none'}"
    return MissingPartError(said + may_hold(kinds))


def installed_but_failed(kinds: Sequence[Kind], name: str) -> str:
    """What is said of a name that is that of a failed plugin's entry point or distribution; empty for other names."""
    found = [
        f"{owner} is installed, but did not load: {reason}"
        for owner, reason in _failures(kinds)
        if name in (owner.entry_point, owner.entry_point.partition(".")[2])
        or canonical(name) == canonical(owner.distribution)
    ]
    return "; ".join(found)


def may_hold(kinds: Sequence[Kind]) -> str:
    """The end of a sentence about a name that is not known: which failed plugins may hold it, and why they failed."""
    return "".join(f"; {owner} may hold it, but did not load: {reason}" for owner, reason in _failures(kinds))


def _failures(kinds: Sequence[Kind]) -> dict[tuple[Owner, str], None]:
    return dict.fromkeys((f.owner, f.reason) for kind in kinds for f in catalogue(kind).failures)
