"""A short Markdown summary for a CI's page: verdict, gates, what changed, one line per row."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from segdeploy.benchmark.numbers import accuracy_of, row_label
from segdeploy.benchmark.report import figure, percent, points, share, speed, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from segdeploy.benchmark.outcome import Comparison, GateCheck
    from segdeploy.benchmark.result import BenchmarkResult, Row


def to_summary(result: BenchmarkResult) -> str:
    """The summary, a few dozen lines."""
    parts = [f"### {gates_line(result.gates)}", _plain(verdict(result)), *_gates(result.gates)]
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
        _plain(
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


def _gates(checks: Sequence[GateCheck]) -> list[str]:
    said = ["\n".join(f"- not kept: `{c.gate}`: {_plain(c.message)}" for c in checks if not c.passed)]
    kept = "\n".join(f"- `{c.gate}`: {_plain(c.message)}" for c in checks if c.passed)
    if kept:
        said.append(f"<details><summary>Gates that were kept</summary>\n\n{kept}\n\n</details>")
    return [part for part in said if part]


def _comparison(found: Comparison) -> list[str]:
    said = [f"**Since {_plain(found.against)}** ({_plain(found.created)}): {_plain(found.verdict)}"]
    if found.differences:
        said.append("\n".join(f"- {_plain(line)}" for line in found.differences))
    rows = ((row_label(r), r.verdict, r.why) for r in found.rows)
    return [*said, _table(("Row", "Time", "Why"), rows, left=3)]


def _row(result: BenchmarkResult, row: Row) -> Sequence[str]:
    if row.latency is None:
        return row_label(row), "failed", row.reason or "no reason on record", "", "", "", ""
    found = accuracy_of(result, row)
    return (
        row_label(row),
        figure(row.latency.p50),
        figure(row.latency.p99),
        speed(row),
        percent(found.mean_iou if found else None),
        points(found.miou_delta if found else None),
        share(found.label_agreement if found else None),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    rule = [" --- |" if i < left else " ---: |" for i in range(len(head))]
    lines = [f"| {' | '.join(map(_plain, cells))} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{''.join(rule)}", *lines[1:]])


def _plain(text: str) -> str:
    """Text that Markdown takes literally, on one line, also in a table."""
    return re.sub(
        r"[\\`*|~\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", html.escape(" ".join(text.split()), quote=False)
    )
