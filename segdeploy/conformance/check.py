"""Checks parts: the whole of `segdeploy plugins check` but for its words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from segdeploy.config.yaml12 import parse
from segdeploy.conformance.backend_subject import BackendSubject
from segdeploy.conformance.judge import Judge
from segdeploy.conformance.subject import Subject
from segdeploy.conformance.table import rules_for
from segdeploy.errors import ConfigError, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from segdeploy.conformance.find import Part
    from segdeploy.conformance.rule import Outcome


@dataclass(frozen=True, slots=True)
class Checked:
    """A part and what came of its rules; `about` is its configuration and its partner, JSON-ready.

    `skipped` says why it was not judged at all.
    """

    part: Part
    outcomes: tuple[Outcome, ...]
    about: dict[str, Any]
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether no rule failed, and none could not be judged because another failed."""
        return all(outcome.state in ("passed", "skipped") for outcome in self.outcomes)


def judge_of(part: Part, values: Mapping[str, Any] | None = None, partner: str | None = None) -> Judge:
    """A judge of one part, with all rules of its kind.

    Args:
        part: what is to be judged.
        values: keys of its own that are not to have their defaults.
        partner: the other half of an encoder or decoder; by default one of ours that fits.
    """
    make = BackendSubject if part.kind == "backend" else Subject
    return Judge(make(part, values, partner), rules_for(part.kind))


def rules_by_part(found: Sequence[Part], rules: Sequence[str] = ()) -> dict[Part, tuple[str, ...]]:
    """The names of the rules that each part is judged by: all of its kind, or those of `rules` that its kind has.

    A part whose kind has none of them is left out.

    Raises:
        ConfigError: a rule that no kind among the parts has.
    """
    known = {part: [rule.name for rule in rules_for(part.kind)] for part in found}
    for name in rules:
        if not any(name in names for names in known.values()):
            kinds = ", ".join(dict.fromkeys(part.kind for part in found))
            raise ConfigError(
                f"no rule of kind {kinds} is named {name!r}{suggest(name, dict.fromkeys(chain(*known.values())))}"
            )
    chosen = {part: tuple(n for n in rules if n in names) if rules else tuple(names) for part, names in known.items()}
    return {part: names for part, names in chosen.items() if names}


def check_part(
    judge: Judge, rules: Sequence[str] = (), progress: Callable[[int, int], None] = lambda done, total: None
) -> Checked:
    """Judge a part by all its rules, or by those named, which are its kind's.

    Raises:
        KeysNeededError: it can only be made from keys that were not given.
        ConfigError: a key or value that it refuses, a partner that does not fit.
    """
    chosen = rules or tuple(judge.rules)
    outcomes = []
    for done, name in enumerate(chosen):
        progress(done, len(chosen))
        outcomes.append(judge.outcome(name))
    progress(len(chosen), len(chosen))
    return Checked(judge.subject.part, tuple(outcomes), judge.subject.about())


def parse_values(words: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words, the values YAML.

    Raises:
        ConfigError: a word without its equals sign, or a value that is no YAML.
    """
    values = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word}: expected KEY=VALUE with a key of the part's own, such as width=64")
        values[key] = parse(text, word).value
    return values
