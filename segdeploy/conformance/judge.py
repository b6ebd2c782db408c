"""Runs rules on a subject: each once, those that it needs before it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from segdeploy.conformance.rule import BrokenError, Found, Outcome, Rule, SkippedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.conformance.find import Part
    from segdeploy.conformance.rule import State


class Subject(Protocol):
    """A part under test; the rules know more about it."""

    part: Part

    def about(self) -> dict[str, Any]:
        """Its configuration, JSON-ready."""


class Judge:
    """Judges one subject by `rules`; outcomes are kept, so that nothing is done twice."""

    def __init__(self, subject: Subject, rules: Sequence[Rule]) -> None:
        self.subject = subject
        self.rules = {rule.name: rule for rule in rules}
        self._outcomes: dict[str, Outcome] = {}

    def outcome(self, name: str) -> Outcome:
        """What came of the rule of that name. What an error of the kit itself raises goes through."""
        if name not in self._outcomes:
            self._outcomes[name] = self._judge(self.rules[name])
        return self._outcomes[name]

    def _judge(self, rule: Rule) -> Outcome:
        for need in (n for n in rule.needs if n in self.rules):  # others are another kind's
            before = self.outcome(need)
            if before.state in ("failed", "blocked"):
                cause = before.cause or need
                return Outcome(rule=rule, state="blocked", detail=f"not judged: {cause} failed", cause=cause)
        started = time.perf_counter()
        state: State
        try:
            found: Found = rule.check(self.subject)
            state, detail, numbers = "passed", found.text, found.numbers
        except BrokenError as e:
            state, detail, numbers = "failed", str(e), e.numbers
        except SkippedError as e:
            state, detail, numbers = "skipped", str(e), {}
        return Outcome(
            rule=rule,
            state=state,
            detail=detail,
            numbers=numbers,
            seconds=time.perf_counter() - started,
        )
