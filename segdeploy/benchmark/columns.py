"""The tables of the pages as data: every cell with its text and the places of its numbers in report.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from segdeploy.benchmark import outline
from segdeploy.pages.formats import DASH, figure, interval, percent, points, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segdeploy.benchmark.outline import Group
    from segdeploy.benchmark.result import Accuracy, BenchmarkResult, Row


class Cell(NamedTuple):
    """What a reader sees, and where its numbers stand in report.json, in their order: "rows.0.latency.p50"."""

    text: str
    paths: tuple[str, ...] = ()


class Line(NamedTuple):
    """One row of a table: its name, its cells, or in words why it has none."""

    name: str
    cells: tuple[Cell, ...]
    reason: str | None = None
    failed: bool = False
    baseline: bool = False


class Part(NamedTuple):
    """Lines that belong together, under a heading of their own where there are several parts."""

    title: str
    lines: tuple[Line, ...]


class Table(NamedTuple):
    """`heads` are pairs of a key, which the page explains, and the text above the column."""

    id: str
    about: str
    heads: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


class _Source(NamedTuple):
    """A row with its score, and their places."""

    place: int
    row: Row
    scored: tuple[int, Accuracy] | None


if TYPE_CHECKING:
    _Column = tuple[str, str, Callable[[_Source], Cell]]
    _ScoreColumn = tuple[str, str, Callable[[int, Accuracy], Cell]]


def _cell(item: object, place: str, path: str, how: Callable[[Any], str]) -> Cell:
    value: Any = item
    for key in path.split("."):
        value = None if value is None else getattr(value, key)
    text = how(value)
    return Cell(text, () if text == DASH else (f"{place}.{path}",))


def _of_row(path: str, how: Callable[[Any], str]) -> Callable[[_Source], Cell]:
    return lambda s: _cell(s.row, f"rows.{s.place}", path, how)


def _of_score(path: str, how: Callable[[Any], str]) -> Callable[[int, Accuracy], Cell]:
    return lambda index, found: _cell(found, f"accuracy.{index}", path, how)


def _for_row(column: _ScoreColumn) -> _Column:
    return (*column[:2], lambda s: column[2](*s.scored) if s.scored else Cell(DASH))


def _speedup(source: _Source) -> Cell:
    row = source.row
    text = interval(row.speedup, row.speedup_low, row.speedup_high)
    keys = ("speedup", "speedup_low", "speedup_high") if "[" in text else () if text == DASH else ("speedup",)
    return Cell(text, tuple(f"rows.{source.place}.{key}" for key in keys))


def _outside(source: _Source) -> Cell:
    whole, engine = source.row.latency, source.row.engine
    if whole is None or engine is None or whole.p50 <= 0:
        return Cell(DASH)
    return Cell(f"{max(0.0, 1 - engine.p50 / whole.p50) * 100:.1f}")


def _worst(index: int, found: Accuracy) -> Cell:
    if found.label_agreement is not None and found.label_agreement >= 1:
        return Cell(share(1.0))
    known = bool(found.worst) and found.worst[0].agreement is not None
    return Cell(share(found.worst[0].agreement), (f"accuracy.{index}.worst.0.agreement",)) if known else Cell(DASH)


_P50: _Column = ("p50", "p50, ms", _of_row("latency.p50", figure))
_SPEEDUP: _Column = ("speedup", "Speed-up", _speedup)
_MIOU: _ScoreColumn = ("miou", "mIoU, %", _of_score("mean_iou", percent))
_DELTA: _ScoreColumn = ("delta", "mIoU delta, points", _of_score("miou_delta", points))
_BOUNDARY: _ScoreColumn = ("boundary_delta", "Boundary IoU delta, points", _of_score("boundary_delta", points))
_SAME: _ScoreColumn = ("agreement", "Same class, %", _of_score("label_agreement", share))
_GLANCE: tuple[_Column, ...] = (_P50, _SPEEDUP, *map(_for_row, (_MIOU, _DELTA, _BOUNDARY, _SAME)))
_SPEED: tuple[_Column, ...] = (
    _P50,
    ("p90", "p90, ms", _of_row("latency.p90", figure)),
    ("p99", "p99, ms", _of_row("latency.p99", figure)),
    ("mean", "Mean, ms", _of_row("latency.mean", figure)),
    ("min", "Fastest, ms", _of_row("latency.min", figure)),
    ("engine", "Engine alone p50, ms", _of_row("engine.p50", figure)),
    ("outside", "Outside the engine, %", _outside),
    ("file", "File to file p50, ms", _of_row("file_to_file.p50", figure)),
    ("timed", "Same, %", _of_row("agreement", share)),
    ("rate", "Images/s", _of_row("images_per_second", figure)),
    _SPEEDUP,
)
_ACCURACY: tuple[_ScoreColumn, ...] = (
    _MIOU,
    _DELTA,
    ("boundary", "Boundary IoU, %", _of_score("boundary_iou", percent)),
    _BOUNDARY,
    _SAME,
    ("worst", "Same class, worst image, %", _worst),
    ("pixels", "Pixel accuracy, %", _of_score("pixel_accuracy", percent)),
    ("recall", "Mean recall, %", _of_score("mean_class_accuracy", percent)),
)


def glance(result: BenchmarkResult) -> Table:
    """The first group, fastest first, with what a decision needs."""
    first = outline.groups(result)[:1]
    ranked = [
        group._replace(rows=tuple(sorted(group.rows, key=lambda n: n.row.latency.p50 if n.row.latency else 1e12)))
        for group in first
    ]
    return _table(result, "glance", "Results at a glance", _GLANCE, ranked)


def speed(result: BenchmarkResult) -> Table:
    """Every row of every group: times, throughput, speed-up."""
    return _table(result, "speed-table", "Times of all rows", _SPEED, outline.groups(result))


def _table(
    result: BenchmarkResult, name: str, about: str, columns: Sequence[_Column], groups: Sequence[Group]
) -> Table:
    parts = []
    for group in groups:
        base, lines = group.baseline, list[Line]()
        for index, row in group.rows:
            source = _Source(index, row, outline.accuracy_of(result, row))
            cells = tuple(cell(source) for *_, cell in columns)
            lines.append(Line(outline.label(result, row), cells, _reason(row), row.status == "failed", row is base))
        title = outline.title(result, group)
        parts.append(Part(title[0].upper() + title[1:], tuple(lines)))
    return Table(name, about, (("name", "Row"), *((k, h) for k, h, _ in columns)), tuple(parts))


def _reason(row: Row) -> str | None:
    return (row.reason or "no reason on record") if row.status == "failed" else None


def accuracy(result: BenchmarkResult) -> Table:
    """Every score on the whole table of images."""
    lines = [
        Line(outline.label(result, found), tuple(cell(index, found) for *_, cell in _ACCURACY))
        for index, found in outline.scored(result)
    ]
    heads = (("name", "Row"), *((k, h) for k, h, _ in _ACCURACY))
    return Table("accuracy-table", "Accuracy of all rows", heads, (Part("", tuple(lines)),))
