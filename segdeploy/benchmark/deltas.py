"""What each way of running does to each class, as a table of coloured differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from segdeploy.benchmark import outline
from segdeploy.pages.formats import differs, percent, points

if TYPE_CHECKING:
    from segdeploy.benchmark.result import BenchmarkResult, ClassScore

_FULL = 0.01
"""The difference that gets the full colour: one point, or the largest where one is larger."""


class Shade(NamedTuple):
    """One cell: its text, its place in report.json, and how it is coloured."""

    text: str
    path: str
    kind: str = ""
    """ "loss", "gain" or ""."""
    strength: float = 0.0
    """0 to 1."""


class Heat(NamedTuple):
    """One measure: the reference's own values, then the differences of each row from them."""

    id: str
    measure: str
    full: float
    """The difference of full colour, as a fraction."""
    reference: tuple[str, tuple[Shade, ...]] | None
    lines: tuple[tuple[str, tuple[Shade, ...]], ...]


def heats(result: BenchmarkResult) -> list[Heat]:
    """IoU, then boundary IoU, each where at least one difference is known."""
    measures = (("iou", "iou_delta", "IoU"), ("boundary_iou", "boundary_delta", "Boundary IoU"))
    found = [_heat(result, *measure) for measure in measures]
    return [heat for heat in found if any(cell.path for _, cells in heat.lines for cell in cells)]


def _heat(result: BenchmarkResult, value: str, delta: str, measure: str) -> Heat:
    truth, names = outline.reference(result), result.spec.classes.names
    known = [abs(getattr(c, delta) or 0) for a in result.accuracy for c in a.per_class]
    full = max([_FULL, *known])
    first, lines = None, []
    for number, found in outline.scored(result):
        places = {c.name: i for i, c in enumerate(found.per_class)}
        key = value if found is truth else delta
        cells = []
        for name in names:
            place = places.get(name)
            said: float | None = None if place is None else getattr(found.per_class[place], key)
            path = "" if said is None else f"accuracy.{number}.per_class.{place}.{key}"
            if found is truth or said is None or not differs(said):
                cells.append(Shade(percent(said) if found is truth else points(said), path))
            else:
                cells.append(Shade(points(said), path, "loss" if said < 0 else "gain", min(1.0, abs(said) / full)))
        line = (outline.label(result, found), tuple(cells))
        if found is truth:
            first = line
        else:
            lines.append(line)
    return Heat(f"heat-{value.split('_')[0]}", measure, full, first, tuple(lines))


class ClassLine(NamedTuple):
    """One class by the reference, and the largest change of its IoU by any row."""

    name: str
    color: tuple[int, int, int]
    path: str
    score: ClassScore | None
    change: tuple[str, float, str] | None
    """Which row, by how much, and where that stands in report.json."""


def class_lines(result: BenchmarkResult) -> list[ClassLine]:
    """One line per class, in the model's order; empty without a score."""
    ranked = outline.scored(result)
    if not ranked:
        return []
    index, truth = ranked[0]
    lines = []
    for name, color in zip(result.spec.classes.names, result.spec.classes.colors, strict=True):
        place = next((i for i, c in enumerate(truth.per_class) if c.name == name), None)
        own = None if place is None else truth.per_class[place]
        changes = [
            (outline.label(result, a), c.iou_delta, f"accuracy.{n}.per_class.{i}.iou_delta")
            for n, a in ranked[1:]
            for i, c in enumerate(a.per_class)
            if c.name == name and c.iou_delta is not None and differs(c.iou_delta)
        ]
        largest = max(changes, key=lambda c: abs(c[1]), default=None)
        lines.append(ClassLine(name, color, f"accuracy.{index}.per_class.{place}", own, largest))
    return lines
