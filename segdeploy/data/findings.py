"""Finding: one thing that is wrong, or looks wrong, with a data set, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from segdeploy.config.preprocessing import Allowable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

ALLOWABLE: frozenset[str] = frozenset(get_args(Allowable))
"""Rules that `preprocessing.allow` can switch off; with the others no epoch could be trained."""
_LINES = 20
"""Files of a rule."""
_ALIKE = 5
"""Of them with one and the same fault, where not all can be named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: training would fail or learn something wrong in silence. `warning`: worth a look."""

    severity: Literal["error", "warning"]
    rule: str
    file: Path | None
    message: str
    same: str = ""
    """What the message says of other files alike; "": all of it."""

    @property
    def fault(self) -> str:
        """What findings of several files are grouped by."""
        return self.same or self.message


def first_lines(head: str, lines: Sequence[str], count: int = 50) -> str:
    """`head`, and below it the first `count` lines with the number of the others."""
    more = [f"... and {len(lines) - count} more"] if len(lines) > count else []
    return "\n".join([head, *lines[:count], *more])


def findings_text(findings: Iterable[Finding], lines: int = _LINES) -> str:
    """The findings by rule, at most `lines` files of each; of more, a few stand for all with one and the same fault."""
    said = []
    for rule, group in _grouped(findings, lambda f: f.rule):
        said.append(f"{rule} ({len(group)})" if len(group) > 1 else rule)
        if len(group) <= lines:
            said += map(_line, group)
            continue
        room, left = lines, len(group)
        for _, alike in sorted(_grouped(group, lambda f: f.fault), key=lambda item: -len(item[1])):
            if room <= 0:
                break
            shown = alike[: min(_ALIKE, room)]
            said += map(_line, shown)
            if len(alike) > len(shown):
                said.append(f"  and {len(alike) - len(shown)} more: {alike[0].same}".removesuffix(": "))
            room -= len(shown)
            left -= len(alike)
        if left:
            said.append(f"  and {left} more")
    return "\n".join(said)


def _grouped(findings: Iterable[Finding], key: Callable[[Finding], str]) -> list[tuple[str, list[Finding]]]:
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(key(finding), []).append(finding)
    return list(groups.items())


def _line(finding: Finding) -> str:
    return f"  {finding.file}: {finding.message}" if finding.file else f"  {finding.message}"


def refusal(errors: list[Finding]) -> str:
    """All errors as the text of one DataError, with the way round those that have one."""
    rules = sorted({e.rule for e in errors} & ALLOWABLE)
    said = f"the data have {len(errors)} error(s):\n{findings_text(errors)}"
    if rules:
        said += f"\nif this is meant, say so in the configuration: preprocessing: {{allow: [{', '.join(rules)}]}}"
    return said
