"""How a page divides a result: groups of rows that can be compared, names that tell rows apart, the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from segdeploy.benchmark import numbers
from segdeploy.config.export import Export
from segdeploy.pages.formats import TIMES, plural

if TYPE_CHECKING:
    from segdeploy.benchmark.result import Accuracy, BenchmarkResult, Row


class Numbered(NamedTuple):
    """A row and its place in report.json."""

    place: int
    row: Row


class Group(NamedTuple):
    """Rows of one batch, thread count and size: they took turns and can be compared."""

    batch: int
    threads: int
    height: int
    width: int
    rows: tuple[Numbered, ...]

    @property
    def baseline(self) -> Row | None:
        """The torch row that the speed-ups of this group are quoted against."""
        name = next((r.baseline for _, r in self.rows if r.baseline), None)
        return next((r for _, r in self.rows if r.name == name), None)

    @property
    def compiled(self) -> bool:
        """Whether a compiled row of torch has run."""
        return any(r.backend == "torch" and r.variant.startswith("compile") and r.status == "ok" for _, r in self.rows)

    @property
    def size(self) -> str:
        """Width and height of the images."""
        return f"{self.width} {TIMES} {self.height} pixels"


def groups(result: BenchmarkResult) -> list[Group]:
    """In the order of the rows; the first is the one that headlines are about."""
    found: dict[tuple[int, int, int, int], list[Numbered]] = {}
    for place, row in enumerate(result.rows):
        found.setdefault((row.batch, row.threads, row.height, row.width), []).append(Numbered(place, row))
    return [Group(*key, tuple(rows)) for key, rows in found.items()]


def setting(item: Row | Group) -> str:
    """Batch and threads in words: "batch 1, 2 CPU threads"."""
    return f"batch {item.batch}, {plural(item.threads, 'CPU thread')}"


def title(result: BenchmarkResult, group: Group) -> str:
    """What tells a group from the others."""
    sizes = {(r.height, r.width) for r in result.rows}
    return f"{setting(group)}, {group.size}" if len(sizes) > 1 else setting(group)


def label(result: BenchmarkResult, item: Row | Accuracy) -> str:
    """The name, with the precision where it tells rows apart."""
    several = len({r.precision for r in result.rows}) > 1 and item.precision not in item.name
    return f"{item.name} {item.precision}" if several else item.name


def reference(result: BenchmarkResult) -> Accuracy | None:
    """The score of torch that the deltas are against."""
    return next((a for a in result.accuracy if a.backend == "torch"), None)


def scored(result: BenchmarkResult) -> list[tuple[int, Accuracy]]:
    """Scores with their places in report.json, the reference first."""
    return sorted(enumerate(result.accuracy), key=lambda pair: pair[1] is not reference(result))


def accuracy_of(result: BenchmarkResult, row: Row) -> tuple[int, Accuracy] | None:
    """The score of what a row runs, and its place in report.json; that of a sister or another size says nothing."""
    found = numbers.accuracy_of(result, row)
    return None if found is None else (result.accuracy.index(found), found)


def kept(found: Accuracy) -> bool:
    """Whether the labels are torch's within the limits that an export of this precision keeps by default."""
    limits = Export().limits(found.precision)
    agrees = found.label_agreement is not None and found.label_agreement >= limits.min_agreement
    return agrees and (found.miou_delta is None or -found.miou_delta <= limits.max_miou_drop)


def series(result: BenchmarkResult) -> dict[str, int]:
    """A number, and so a colour and a shape, for each backend."""
    names = [*(r.backend for r in result.rows), *(a.backend for a in result.accuracy)]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def on_cpu(row: Row) -> bool:
    """Whether no accelerator is named as what ran it."""
    return row.provider is None or "cpu" in row.provider.lower()
