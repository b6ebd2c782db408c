"""A BenchmarkResult as pages: report.html for people, report.md for a pull request, report.json for machines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from segdeploy.benchmark import charts, columns, deltas, outline, totals
from segdeploy.benchmark.since import since
from segdeploy.benchmark.verdict import failures, verdict
from segdeploy.files import write_text
from segdeploy.pages import formats
from segdeploy.pages.matrix import MAX_MATRIX, heat_map, row_shares
from segdeploy.pages.render import templates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from segdeploy.benchmark.outcome import GateCheck
    from segdeploy.benchmark.outline import Group
    from segdeploy.benchmark.result import Accuracy, BenchmarkResult


def to_html(result: BenchmarkResult) -> str:
    """One page that needs no script, no network and no other file."""
    return templates("segdeploy.benchmark").get_template("report.html.j2").render(_context(result), **_drawings(result))


def to_markdown(result: BenchmarkResult) -> str:
    """The same without pictures, for a pull request."""
    return templates("segdeploy.benchmark").get_template("report.md.j2").render(_context(result))


def write_report(result: BenchmarkResult, folder: Path) -> Path:
    """Write report.json, report.md and report.html into `folder`; the path of report.html, which is written last."""
    write_text(folder / "report.json", result.model_dump_json(indent=2))
    write_text(folder / "report.md", to_markdown(result))
    return write_text(folder / "report.html", to_html(result))


def _context(result: BenchmarkResult) -> dict[str, Any]:
    """What both templates show."""
    groups, truth = outline.groups(result), outline.reference(result)
    return {
        "result": result,
        "spec": result.spec,
        "verdict": verdict(result),
        "headline": groups[0] if groups else None,
        "setting": outline.setting(groups[0]) if groups else "",
        "groups": groups,
        "sizes": list(dict.fromkeys(g.size for g in groups)),
        "failures": failures(result),
        "glance": columns.glance(result),
        "baselines": totals.baselines(result),
        "compiled": any(group.compiled for group in groups),
        "speed": columns.speed(result),
        "steadiness": totals.steadiness(result),
        "accuracy": columns.accuracy(result) if result.accuracy else None,
        "cost": totals.cost(result),
        "heats": deltas.heats(result),
        "classes": deltas.class_lines(result),
        "scores": [(outline.label(result, a), a) for _, a in outline.scored(result)],
        "worst": _worst(result),
        "alike": [outline.label(result, a) for _, a in outline.scored(result) if a is not truth and _same(a)],
        "truth": outline.label(result, truth) if truth else "torch",
        "since": since(result.comparison) if result.comparison else None,
        "gates": _gates(result),
        "dash": formats.DASH,
        # A command that holds backticks needs a longer fence around it.
        "fence": "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", result.command + "`"))),
    }


def _gates(result: BenchmarkResult) -> dict[str, Any]:
    """The checks by their gates, each with its place in report.json; nobody should have to look for those missed."""
    found: dict[str, list[tuple[int, GateCheck]]] = {}
    for place, check in enumerate(result.gates):
        found.setdefault(check.gate, []).append((place, check))
    for checks in found.values():
        checks.sort(key=lambda pair: pair[1].passed)
    ranked = sorted(found.items(), key=lambda item: all(check.passed for _, check in item[1]))
    return {"by_gate": ranked, "missed": sum(not check.passed for check in result.gates)}


def _same(found: Accuracy) -> bool:
    return found.label_agreement is not None and found.label_agreement >= 1


def _worst(result: BenchmarkResult) -> list[tuple[str, Accuracy]]:
    """The scores with pictures of disagreement, the least agreeing first; the reference with its errors last."""
    truth = outline.reference(result)
    shown = [a for _, a in outline.scored(result) if a.worst and (a is truth or not _same(a))]
    ranked = sorted(shown, key=lambda a: (a is truth, 1 if a.label_agreement is None else a.label_agreement))
    return [(outline.label(result, a), a) for a in ranked]


def _drawings(result: BenchmarkResult) -> dict[str, Any]:
    """The SVGs of the page; a backend has the same colour and shape in all of them."""
    groups, series = outline.groups(result), outline.series(result)
    places: dict[tuple[int, int, int], list[Group]] = {}
    for group in groups:
        places.setdefault((group.threads, group.height, group.width), []).append(group)
    return {
        "scatters": [
            (outline.title(result, g), drawn)
            for n, g in enumerate(groups)
            if (drawn := charts.scatter(_points(result, g, series), outline.title(result, g), n))
        ],
        "latencies": [
            (outline.title(result, g), drawn)
            for n, g in enumerate(groups)
            if (drawn := charts.percentiles(_spans(result, g, series), outline.title(result, g), n))
        ],
        "throughputs": [
            (where, drawn)
            for n, same in enumerate(places.values())
            if (where := outline.title(result, same[0]).partition(", ")[2])
            if (drawn := charts.throughput(_bars(result, same, series), where, n))
        ],
        "matrices": _matrices(result),
        "most": MAX_MATRIX,
    }


def _points(result: BenchmarkResult, group: Group, series: dict[str, int]) -> list[charts.Point]:
    found = [(r, outline.accuracy_of(result, r)) for _, r in group.rows]
    return [
        charts.Point(outline.label(result, r), series[r.backend], r.latency.p50 / r.batch, a[1].mean_iou)
        for r, a in found
        if r.latency and a and a[1].mean_iou is not None
    ]


def _spans(result: BenchmarkResult, group: Group, series: dict[str, int]) -> list[charts.Span]:
    return [
        charts.Span(
            outline.label(result, r) + (" (baseline)" if r is group.baseline else ""), series[r.backend],
            r.latency.p50, r.latency.p90, r.latency.p99, r.engine.p50 if r.engine else None,
        )
        for _, r in group.rows
        if r.latency
    ]  # fmt: skip


def _bars(result: BenchmarkResult, groups: Sequence[Group], series: dict[str, int]) -> list[charts.Bars]:
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for group in groups:
        for _, row in group.rows:
            if row.images_per_second is not None:
                key = (outline.label(result, row), series[row.backend])
                found.setdefault(key, []).append((row.batch, row.images_per_second))
    return [charts.Bars(*key, values) for key, values in found.items()]


def _matrices(result: BenchmarkResult) -> list[tuple[str, Any]]:
    """The reference's confusion matrix, and that of the row that agrees least with it if it looks different."""
    ranked = [found for _, found in outline.scored(result)]
    least = sorted(ranked[1:], key=lambda a: 1 if a.label_agreement is None else a.label_agreement)[:1]
    shown = ranked[:1] + [a for a in least if not _close(ranked[0].confusion, a.confusion)]
    names = result.spec.classes.names
    labels = [outline.label(result, a) for a in shown]
    return [(w, heat_map(names, a.confusion, w, n)) for n, (w, a) in enumerate(zip(labels, shown, strict=True))]


def _close(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> bool:
    """Whether two matrices would look alike: no cell differs by half a percent of its row."""
    pairs = zip(row_shares(one), row_shares(other), strict=True)
    return all(abs((a or 0) - (b or 0)) < 0.005 for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True))
