"""What changed since an older report, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.benchmark.columns import Cell, Line, Part, Table
from segdeploy.pages.formats import DASH, MINUS, TIMES, figure, plural, points

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.benchmark.outcome import Change, Comparison, RowChange

_HEADS = (
    ("name", "Row"), ("outcome", "Time"), ("before", "p50 before, ms"), ("now", "p50 now, ms"),
    ("change", "p50 change, %"), ("miou_change", "mIoU change, points"),
    ("boundary_change", "Boundary IoU change, points"), ("size_change", "File size change, %"),
)  # fmt: skip


def since(comparison: Comparison) -> Table:
    """One line for each row of either report; in words why, where there are no numbers to show."""
    several = len({(r.height, r.width) for r in comparison.rows}) > 1
    parts: dict[str, list[Line]] = {}
    for index, row in enumerate(comparison.rows):
        size = f", {row.width} {TIMES} {row.height} pixels" if several else ""
        title = f"Batch {row.batch}, {plural(row.threads, 'CPU thread')}{size}"
        parts.setdefault(title, []).append(_line(index, row))
    found = tuple(Part(title, tuple(lines)) for title, lines in parts.items())
    return Table("since-table", "What changed since the older report", _HEADS, found)


def _line(index: int, row: RowChange) -> Line:
    places = {c.metric: (f"comparison.rows.{index}.changes.{i}", c) for i, c in enumerate(row.changes)}

    def cell(metric: str, how: Callable[[Change], str], *keys: str) -> Cell:
        place, change = places.get(metric, ("", None))
        text = how(change) if change else DASH
        return Cell(text, tuple(f"{place}.{key}" for key in keys if change and getattr(change, key) is not None))

    return Line(
        row.name,
        (
            Cell(row.verdict),
            cell("p50_ms", lambda c: figure(c.old), "old"),
            cell("p50_ms", lambda c: figure(c.new), "new"),
            cell("p50_ms", _ratio, "change", "low", "high"),
            cell("miou", lambda c: points(c.change), "change"),
            cell("boundary", lambda c: points(c.change), "change"),
            cell("size_mib", _ratio, "change", "low", "high"),
        ),
        None if row.changes else f"{row.verdict}: {row.why.removeprefix('failed: ')}",
    )


def _ratio(change: Change) -> str:
    if change.change is None:
        return DASH
    known = change.low is not None and change.high is not None
    return _signed(change.change) + (f" [{_signed(change.low)}, {_signed(change.high)}]" if known else "")


def _signed(value: float | None) -> str:
    return DASH if value is None else f"{value * 100:+.1f}".replace("-", MINUS)
