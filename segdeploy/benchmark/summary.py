"""A short Markdown summary for a CI's page: verdict, gates, what changed, one line per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.benchmark.numbers import accuracy_of, row_label
from segdeploy.benchmark.verdict import verdict
from segdeploy.pages.formats import figure, interval, markdown, percent, points, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from segdeploy.benchmark.outcome import Comparison, GateCheck
    from segdeploy.benchmark.result import BenchmarkResult, Row


def to_summary(result: BenchmarkResult) -> str:
    """The summary, a few dozen lines."""
    said = verdict(result)
    parts = [f"### {gates_line(result.gates)}", f"**{markdown(said.headline)}**", *_gates(result.gates)]
    if said.cautions:
        parts.append(_folded("Before you quote these numbers", said.cautions))
    if result.comparison:
        parts += _comparison(result.comparison)
    parts += [
        _table(
            (
                "Row",
                "p50, ms",
                "p99, ms",
                f"Speed-up vs {result.baseline or 'torch'}",
                "mIoU, %",
                "mIoU delta, points",
                "Same label, %",
            ),
            (_row(result, row) for row in result.rows),
        ),
        markdown(
            f"{result.model}, {result.images} images of {result.table}, measured {result.created} on"
            f" {result.machine.get('cpu') or 'an unknown CPU'}"
        ),
    ]
    return "\n\n".join(parts) + "\n"


def gates_line(checks: Sequence[GateCheck]) -> str:
    """How many gates were kept."""
    broken = sum(not c.passed for c in checks)
    if not checks:
        return "Benchmark without gates"
    if broken:
        return f"Not passed: {broken} of {len(checks)} gates not kept"
    return f"Passed: {'all ' * (len(checks) > 1)}{len(checks)} gate{'s' * (len(checks) > 1)} kept"


def change_lines(found: Comparison) -> list[tuple[str, str, str]]:
    """Rows, verdict and why; rows of which the same is said share a line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in found.rows:
        alike.setdefault((row.verdict, row.why), []).append(row_label(row))
    return [
        (labels[0] + (f" and {len(labels) - 1} more" if labels[1:] else ""), verdict, why)
        for (verdict, why), labels in alike.items()
    ]


def _gates(checks: Sequence[GateCheck]) -> list[str]:
    broken = [f"- not kept: `{c.gate}`: {markdown(c.message)}" for c in checks if not c.passed]
    kept = [f"`{c.gate}`: {markdown(c.message)}" for c in checks if c.passed]
    said = ["\n".join(broken)] if broken else []
    return [*said, _folded("Gates that were kept", kept, literal=False)] if kept else said


def _folded(title: str, lines: Iterable[str], *, literal: bool = True) -> str:
    body = "\n".join(f"- {markdown(line) if literal else line}" for line in lines)
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _comparison(found: Comparison) -> list[str]:
    said = [f"**Since {markdown(found.against)}** ({markdown(found.created)}): {markdown(found.verdict)}"]
    if found.differences:
        said.append("\n".join(f"- {markdown(line)}" for line in found.differences))
    return [*said, _table(("Row", "Time", "Why"), change_lines(found), left=3)]


def _row(result: BenchmarkResult, row: Row) -> Sequence[str]:
    if row.latency is None:
        return row_label(row), "failed", row.reason or "no reason on record", "", "", "", ""
    found = accuracy_of(result, row)
    return (
        row_label(row),
        figure(row.latency.p50),
        figure(row.latency.p99),
        interval(row.speedup, row.speedup_low, row.speedup_high),
        percent(found.mean_iou if found else None),
        points(found.miou_delta if found else None),
        share(found.label_agreement if found else None),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    rule = [" --- |" if i < left else " ---: |" for i in range(len(head))]
    lines = [f"| {' | '.join(map(markdown, cells))} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{''.join(rule)}", *lines[1:]])
