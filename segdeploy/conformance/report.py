"""What came out, as a table and as JSON."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

from segdeploy.environment import describe_machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.conformance.check import Checked
    from segdeploy.conformance.rule import Rule


def to_dict(checked: Sequence[Checked]) -> dict[str, Any]:
    """One JSON-ready object: whether all passed, machine and versions, and each part with its outcomes."""
    return {
        "passed": all(part.passed for part in checked),
        "machine": describe_machine(),
        "parts": [
            {
                "kind": item.part.kind,
                "name": item.part.name,
                "distribution": item.part.owner.distribution,
                "version": item.part.owner.version,
                "passed": item.passed,
                **item.about,
                "outcomes": [outcome.to_dict() for outcome in item.outcomes],
            }
            for item in checked
        ],
    }


def to_text(checked: Checked) -> str:
    """A table, and under it sentence and fix of each rule that failed."""
    lines = [f"{checked.part}, {checked.part.owner}"]
    width = max(len(outcome.rule.name) for outcome in checked.outcomes)
    for outcome in checked.outcomes:
        lines.append(f"  {outcome.rule.name:{width}}  {outcome.state:7}  {outcome.detail}".rstrip())
    for outcome in checked.outcomes:
        if outcome.state == "failed":
            lines += ["", f"  {outcome.rule.name}: {outcome.detail}", _indented(outcome.rule)]
    counts = {
        state: sum(o.state == state for o in checked.outcomes) for state in ("passed", "failed", "skipped", "blocked")
    }
    lines += ["", "  " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)]
    return "\n".join(lines)


def rules_text(rules: Sequence[Rule]) -> str:
    """Every rule with its kinds, sentence and fix."""
    return "\n\n".join(f"{rule.name} ({', '.join(rule.kinds)})\n{_indented(rule)}" for rule in rules)


def _indented(rule: Rule) -> str:
    said = [("rule: ", rule.sentence), ("fix:  ", rule.fix)]
    return "\n".join(fill(text, 110, initial_indent=f"    {head}", subsequent_indent=" " * 10) for head, text in said)
