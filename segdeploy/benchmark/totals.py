"""Tables with one line for each way of running the model, over all settings: cost, steadiness, rows of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segdeploy.benchmark import outline
from segdeploy.benchmark.columns import Cell, Line, Part, Table
from segdeploy.pages.formats import DASH, count, figure, mebibytes, times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from segdeploy.benchmark.outline import Numbered
    from segdeploy.benchmark.result import BenchmarkResult


def cost(result: BenchmarkResult) -> Table:
    """What each way of running takes beside the time of a call."""
    lines = []
    for name, rows in _by_name(result):
        best = _most(rows, "images_per_second")
        cells = (
            _cell(_first(rows, "load_seconds"), "load_seconds", figure),
            _cell(_first(rows, "first_call_seconds"), "first_call_seconds", figure),
            _cell(_first(rows, "cold_seconds"), "cold_seconds", figure),
            _cell(_first(rows, "artifact_bytes"), "artifact_bytes", mebibytes),
            _cell(_most(rows, "peak_memory_mib"), "peak_memory_mib", figure),
            _cell(_most(rows, "device_memory_mib"), "device_memory_mib", figure),
            _cell(best, "images_per_second", figure),
            Cell(outline.setting(best.row) if best else DASH),
        )
        lines.append(_line(name, rows, cells))
    heads = (
        ("name", "Row"), ("load", "Load, s"), ("first", "First call, s"), ("cold", "Cold start to first mask, s"),
        ("size", "File, MiB"), ("memory", "Peak memory, MiB"), ("device_memory", "GPU memory, MiB"),
        ("best", "Best images/s"), ("best_at", "reached at"),
    )  # fmt: skip
    return Table("cost-table", "Cost of all rows", heads, (Part("", tuple(lines)),))


def steadiness(result: BenchmarkResult) -> Table:
    """How undisturbed the measurements were."""
    lines = []
    for name, rows in _by_name(result):
        timed = [r for _, r in rows if r.latency]
        told = [r.steady for r in timed if r.steady is not None]
        missed = told.count(False)
        cells = (
            Cell(_sum(r.warmup_calls for r in timed)),
            Cell(
                DASH
                if not told
                else "yes"
                if not missed
                else "no"
                if len(told) == 1
                else f"not in {missed} of {len(told)}"
            ),
            Cell(_sum(r.rounds for r in timed)),
            Cell(_sum(sum(map(len, r.latency.samples)) for r in timed if r.latency)),
            Cell(_sum(r.repeated for r in timed)),
            Cell(_sum(r.disturbed for r in timed)),
            Cell(", ".join(dict.fromkeys(r.provider for r in timed if r.provider)) or DASH),
        )
        lines.append(_line(name, rows, cells))
    heads = (
        ("name", "Row"), ("warmup", "Warm-up calls"), ("steady", "Steady"), ("rounds", "Rounds that count"),
        ("calls", "Calls timed"), ("repeated", "Rounds measured again"), ("disturbed", "Disturbed rounds that count"),
        ("device", "Ran on"),
    )  # fmt: skip
    return Table("steady-table", "How steady the measurements were", heads, (Part("", tuple(lines)),))


def baselines(result: BenchmarkResult) -> Table:
    """The rows of torch in every setting, each with how many times the baseline's time it takes."""
    groups = outline.groups(result)
    lines = []
    for name, rows in _by_name(result):
        if rows[0].row.backend != "torch":
            continue
        cells = []
        for group in groups:
            own = next((n for n in rows if n in group.rows), None)
            base = group.baseline.latency if group.baseline else None
            if own is None or own.row.latency is None:
                cells.append(Cell("failed" if own and own.row.status == "failed" else DASH))
                continue
            text = figure(own.row.latency.p50)
            if base and base.p50 > 0:
                text += " (baseline)" if own.row is group.baseline else f" ({times(own.row.latency.p50 / base.p50)}x)"
            cells.append(Cell(text, (f"rows.{own.place}.latency.p50",)))
        cells.append(_cell(_first(rows, "first_call_seconds"), "first_call_seconds", figure))
        lines.append(_line(name, rows, tuple(cells)))
    settings = [outline.title(result, group) for group in groups]
    heads = (
        ("name", "Row"),
        *(("p50", f"{s[0].upper()}{s[1:]}: p50, ms") for s in settings),
        ("first", "First call, s"),
    )
    return Table("baseline-table", "Rows of torch", heads, (Part("", tuple(lines)),))


def _by_name(result: BenchmarkResult) -> list[tuple[str, list[Numbered]]]:
    found: dict[str, list[Numbered]] = {}
    for place, row in enumerate(result.rows):
        found.setdefault(outline.label(result, row), []).append(outline.Numbered(place, row))
    return list(found.items())


def _line(name: str, rows: Sequence[Numbered], cells: tuple[Cell, ...]) -> Line:
    failed = all(r.status == "failed" for _, r in rows)
    return Line(name, cells, rows[0].row.reason or "no reason on record" if failed else None, failed)


def _first(rows: Sequence[Numbered], key: str) -> Numbered | None:
    return next((n for n in rows if getattr(n.row, key) is not None), None)


def _most(rows: Sequence[Numbered], key: str) -> Numbered | None:
    known = [n for n in rows if getattr(n.row, key) is not None]
    return max(known, key=lambda n: float(getattr(n.row, key)), default=None)


def _cell(found: Numbered | None, key: str, how: Callable[[Any], str]) -> Cell:
    return Cell(DASH) if found is None else Cell(how(getattr(found.row, key)), (f"rows.{found.place}.{key}",))


def _sum(values: Iterable[int | None]) -> str:
    known = [v for v in values if v is not None]
    return count(sum(known)) if known else DASH
