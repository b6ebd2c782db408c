"""What a rule is, and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.plugin.manager import Kind

State = Literal["passed", "failed", "skipped", "blocked"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule that is kept has measured: a short text, and the numbers in it (JSON's types, or NaN or infinite)."""

    text: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


class BrokenError(Exception):
    """The rule is not kept: what was expected, what came, and where; `numbers` as in `Found`."""

    def __init__(self, detail: str, **numbers: Any) -> None:
        super().__init__(detail)
        self.numbers = numbers


class SkippedError(Exception):
    """The rule does not apply here, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One demand on a part.

    `sentence` says what is demanded, `fix` what an author does about it. `check` gets the subject; it returns what it
    measured, or raises `BrokenError` or `SkippedError`. It is not judged where a rule of `needs` is not kept.
    """

    name: str
    kinds: tuple[Kind, ...]
    sentence: str
    fix: str
    check: Callable[[Any], Found]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A rule judged. `cause` names the rule that broke where the state is "blocked"."""

    rule: Rule
    state: State
    detail: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    cause: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a number that is not finite is null."""
        found: dict[str, Any] = {"rule": self.rule.name, "state": self.state, "detail": self.detail}
        found |= {"numbers": finite(self.numbers), "seconds": round(self.seconds, 3)}
        if self.state == "failed":
            found |= {"sentence": self.rule.sentence, "fix": self.rule.fix}
        return found


def finite(value: Any) -> Any:
    """`value` with None for each NaN and infinity in it: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
