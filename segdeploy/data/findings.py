"""Finding: one thing that is wrong, or looks wrong, with a data set, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from segdeploy.config.preprocessing import Allowable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

ALLOWABLE: frozenset[str] = frozenset(get_args(Allowable))
"""Rules that `preprocessing.allow` can switch off; with the others no epoch could be trained."""
_LINES = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: training would fail or learn something wrong in silence. `warning`: worth a look."""

    severity: Literal["error", "warning"]
    rule: str
    file: Path | None
    message: str


def first_lines(head: str, lines: Sequence[str], count: int = 50) -> str:
    """`head`, and below it the first `count` lines with the number of the others."""
    more = [f"... and {len(lines) - count} more"] if len(lines) > count else []
    return "\n".join([head, *lines[:count], *more])


def findings_text(findings: Iterable[Finding], lines: int = _LINES) -> str:
    """The findings by rule, at most `lines` of each."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.rule, []).append(finding)
    said = []
    for rule, group in groups.items():
        said.append(f"{rule} ({len(group)})" if len(group) > 1 else rule)
        said += [f"  {f.file}: {f.message}" if f.file else f"  {f.message}" for f in group[:lines]]
        if len(group) > lines:
            said.append(f"  and {len(group) - lines} more")
    return "\n".join(said)


def refusal(errors: list[Finding]) -> str:
    """All errors as the text of one DataError, with the way round those that have one."""
    rules = sorted({e.rule for e in errors} & ALLOWABLE)
    said = f"the data have {len(errors)} error(s):\n{findings_text(errors)}"
    if rules:
        said += f"\nif this is meant, say so in the configuration: preprocessing: {{allow: [{', '.join(rules)}]}}"
    return said
