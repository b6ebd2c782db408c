"""What came out, as a table and as JSON; and the rules themselves as text.

`python -m segdeploy.conformance.report plugins/README.md` rewrites the rules' part of the author's guide.
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from segdeploy.conformance.table import RULES
from segdeploy.environment import describe_machine
from segdeploy.files import write_text
from segdeploy.plugin.describe import with_block

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
                "skipped": item.skipped,
                **item.about,
                "outcomes": [outcome.to_dict() for outcome in item.outcomes],
            }
            for item in checked
        ],
    }


def to_text(checked: Checked) -> str:
    """A table, and under it sentence and fix of each rule that failed."""
    lines = [f"{checked.part}, {checked.part.owner}"]
    if checked.skipped:
        return f"{lines[0]}\n  not judged: {checked.skipped}"
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


def rules_markdown(rules: Sequence[Rule]) -> str:
    """A table of all rules for the author's guide."""
    lines = ["| rule | of | what is demanded |", "|---|---|---|"]
    lines += [f"| `{r.name}` | {', '.join(r.kinds)} | {r.sentence} |" for r in rules]
    return "\n".join(lines) + "\n"


def _indented(rule: Rule) -> str:
    said = [("rule: ", rule.sentence), ("fix:  ", rule.fix)]
    return "\n".join(
        fill(text, 110, initial_indent=f"    {head}", subsequent_indent=" " * 10, break_on_hyphens=False)
        for head, text in said
    )


if __name__ == "__main__":
    guide = Path(sys.argv[1])
    write_text(guide, with_block(guide.read_text(encoding="utf-8"), "rules", rules_markdown(RULES)))
