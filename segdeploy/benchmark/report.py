"""A BenchmarkResult as pages: report.html for people, report.md for a pull request, report.json for machines."""

from __future__ import annotations

import html
import math
import re
from functools import cache
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segdeploy.benchmark import charts
from segdeploy.benchmark.charts import DASH, differs, signed
from segdeploy.config.export import Export
from segdeploy.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from segdeploy.benchmark.result import Accuracy, BenchmarkResult, Row

FEW_ROUNDS = 5
"""With fewer rounds than this an interval says little."""
_IDENTITY = 3  # the columns that a failed row has, too


def to_html(result: BenchmarkResult) -> str:
    """One page that needs no script, no network and no other file."""
    return _templates().get_template("report.html.j2").render(_context(result), **_pictures(result))


def to_markdown(result: BenchmarkResult) -> str:
    """The same without pictures, for a pull request."""
    return _templates().get_template("report.md.j2").render(_context(result))


def write_report(result: BenchmarkResult, folder: Path) -> Path:
    """Write report.json, report.md and report.html into `folder`; the path of report.html, which is written last."""
    write_text(folder / "report.json", result.model_dump_json(indent=2))
    write_text(folder / "report.md", to_markdown(result))
    return write_text(folder / "report.html", to_html(result))


def verdict(result: BenchmarkResult) -> str:
    """What the numbers say, in plain words and no more than that."""
    truth = _reference(result)
    said = ["There is no score of torch, so nothing here says whether accuracy was kept."]
    if truth is not None:
        reaches = f"{truth.name} reaches a mean IoU of {percent(truth.mean_iou)} %"
        said = [f"On the {result.images} images of {result.table}, {reaches}."]
    only_torch = all(r.backend == "torch" for r in result.rows)
    batches: dict[str, list[Row]] = {}
    for row in sorted(result.rows, key=lambda r: r.batch):
        if row.backend != "torch" or (only_torch and row.name != result.baseline):
            batches.setdefault(_label(result, row), []).append(row)
    for label, (first, *more) in batches.items():
        found = _accuracy(result, first)
        clauses = [] if only_torch or found is None else [_labels_clause(found, truth)]
        clauses.append(_TOLD[_judge(result, first)][0].format(**_facts(result, first)))
        rest = [f"; at batch {r.batch}: {_TOLD[_judge(result, r)][1].format(**_facts(result, r))}" for r in more]
        said.append(f"{label} {' and '.join(clauses)}{''.join(rest)}.")
    timed = sorted((r.batch, r.latency.p50, _label(result, r)) for r in result.rows if r.latency)
    if len(timed) > 1 and timed[0][0] == timed[1][0]:
        batch, fastest, label = timed[0]
        said.append(f"The lowest median time at batch {batch} is that of {label}: {figure(fastest)} ms.")
    failed = [r for r in result.rows if r.status == "failed"]
    for label, reason in dict.fromkeys((_label(result, r), r.reason) for r in failed):
        sizes = ", ".join(str(r.batch) for r in failed if (_label(result, r), r.reason) == (label, reason))
        said.append(f"Failed: {label} at batch {sizes} ({shorten(reason or 'no reason on record', 160).rstrip('.')}).")
    if any(record.get("passed") is False for record in result.verification):
        said.append("The bundle's own comparison with torch was not passed, see Verification.")
    return " ".join([*said, "Read the notes before you quote these numbers."] if result.notes else said)


# How a row's speed is told: in full for the smallest batch, in short for the others.
_TOLD = {
    "faster": ("is {times} as fast as {base} {where}", "{times} as fast"),
    "slower": ("is slower than {base} {where}: {times} as fast", "slower, {times} as fast"),
    "equal": (
        "is neither measurably faster nor slower than {base} {where}: {times} as fast; the interval includes 1.0",
        "no measurable difference, {times} as fast",
    ),
    "unsure": ("is {times} as fast as {base} {where} by the median, but {doubt}", "{times} as fast, but {doubt}"),
    "unknown": ("has no speed-up on record {where}", "no speed-up on record"),
    "failed": ("failed {where}", "failed"),
}


def _judge(result: BenchmarkResult, row: Row) -> str:
    if row.status == "failed" or row.speedup is None:
        return "failed" if row.status == "failed" else "unknown"
    if row.speedup_low is None or row.speedup_high is None or result.rounds < FEW_ROUNDS:
        return "unsure"
    # By the digits that a reader sees: [1.00, 1.05] is no proof of anything.
    low, high = float(_times(row.speedup_low)), float(_times(row.speedup_high))
    return "faster" if low > 1 else "slower" if high < 1 else "equal"


def _facts(result: BenchmarkResult, row: Row) -> dict[str, str]:
    base = next((r for r in result.rows if r.name == result.baseline and r.batch == row.batch), row)
    elsewhere = f" on {base.provider or 'the CPU'}" if _on_cpu(base) != _on_cpu(row) else ""
    device = f"{row.threads} CPU thread{'s' * (row.threads > 1)}" if _on_cpu(row) else row.provider
    return {
        "times": speed(row),
        "base": f"{result.baseline}{elsewhere}",
        "where": f"at batch {row.batch} on {device}",
        "doubt": f"{result.rounds} rounds are too few" if row.speedup_low is not None else "there is no interval",
    }


def _labels_clause(found: Accuracy, truth: Accuracy | None) -> str:
    if truth is None or found.label_agreement is None:
        return f"was not compared with torch's labels (mIoU {percent(found.mean_iou)} %)"
    delta = f", {points(found.miou_delta)} points" if differs(found.miou_delta) else ""
    scores = f"(mIoU {percent(found.mean_iou)} vs {percent(truth.mean_iou)} %{delta})"
    if found.label_agreement >= 1:
        return f"gives the same label as {truth.name} on every pixel {scores}"
    agree = f"{share(found.label_agreement)} % of the pixels"
    if found.label_agreement >= Export().limits(found.precision).min_agreement:
        return f"gives the same labels as {truth.name} on {agree} {scores}"
    return f"does not give the same labels as {truth.name}: only {agree} agree {scores}"


def _tell(value: float | None, how: Callable[[float], str]) -> str:
    return how(value) if isinstance(value, int | float) and math.isfinite(value) else DASH


def figure(value: float | None) -> str:
    """Three digits or more; a dash for what is not known."""
    size = abs(value or 0)
    form = ",.0f" if size >= 1000 else ".1f" if size >= 100 else ".2f" if size >= 1 else ".3g"
    return _tell(value, lambda v: format(v, form))


def percent(value: float | None) -> str:
    """A fraction in percent: 0.12345 as "12.35"."""
    return _tell(value, lambda v: f"{v * 100:.2f}")


def points(value: float | None) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return _tell(value, signed)


def share(value: float | None) -> str:
    """Percent with three decimals, rounded down: nothing short of all may read as 100."""
    return _tell(value, lambda v: "100" if v >= 1 else f"{min(math.floor(v * 1e5 + 1e-6), 99999) / 1e3:.3f}")


def speed(row: Row) -> str:
    """The speed-up with its interval: "1.31x [1.28, 1.34]"."""
    known = row.speedup_low is not None and row.speedup_high is not None
    interval = f" [{_times(row.speedup_low)}, {_times(row.speedup_high)}]" if known else ""
    return DASH if row.speedup is None else f"{_times(row.speedup)}x{interval}"


def _times(value: float | None) -> str:
    return _tell(value, lambda v: f"{v:.2f}" if v >= 0.095 else f"{v:.2g}")


def _on_cpu(row: Row) -> bool:
    return row.provider is None or "cpu" in row.provider.lower()


def _ran_on(row: Row, found: Accuracy | None) -> str:
    threads = f", {row.threads} thread{'s' * (row.threads > 1)}"
    return row.provider + (threads if _on_cpu(row) else "") if row.provider else DASH


def _label(result: BenchmarkResult, item: Row | Accuracy) -> str:
    """The name, with the precision where it tells rows apart."""
    several = len({r.precision for r in result.rows}) > 1 and item.precision not in item.name
    return f"{item.name} {item.precision}" if several else item.name


def _reference(result: BenchmarkResult) -> Accuracy | None:
    return next((a for a in result.accuracy if a.backend == "torch"), None)


def _reference_first(result: BenchmarkResult) -> list[Accuracy]:
    return sorted(result.accuracy, key=lambda a: a is not _reference(result))


def _accuracy(result: BenchmarkResult, row: Row) -> Accuracy | None:
    same = [a for a in result.accuracy if (a.backend, a.precision) == (row.backend, row.precision)]
    return next((a for a in same if a.name == row.name), same[0] if same else None)


def _columns(result: BenchmarkResult) -> list[tuple[str, str, Callable[[Row, Accuracy | None], str]]]:
    """Key, head and cell of each column of the table of rows; the page says what each key means."""

    def value(of: str, key: str, how: Callable[[float | None], str]) -> Callable[[Row, Accuracy | None], str]:
        # Rows without a latency and rows without a score have dashes in these columns.
        return lambda row, found: how(getattr(row.latency if of == "latency" else found, key, None))

    return [
        ("name", "Row", lambda r, a: r.name),
        ("batch", "Batch", lambda r, a: str(r.batch)),
        ("precision", "Precision", lambda r, a: r.precision),
        ("p50", "p50, ms", value("latency", "p50", figure)),
        ("p90", "p90, ms", value("latency", "p90", figure)),
        ("p99", "p99, ms", value("latency", "p99", figure)),
        ("mean", "Mean, ms", value("latency", "mean", figure)),
        ("rate", "Images/s", lambda r, a: figure(r.images_per_second)),
        ("speedup", f"Speed-up vs {result.baseline or 'torch'}", lambda r, a: speed(r)),
        ("miou", "mIoU, %", value("accuracy", "mean_iou", percent)),
        ("delta", "mIoU delta, points", value("accuracy", "miou_delta", points)),
        ("agreement", "Same label, %", value("accuracy", "label_agreement", share)),
        ("file", "File, MiB", lambda r, a: figure(None if r.artifact_bytes is None else r.artifact_bytes / 2**20)),
        ("memory", "Peak memory, MiB", lambda r, a: figure(r.peak_memory_mib)),
        ("load", "Load, s", lambda r, a: figure(r.load_seconds)),
        ("first", "First call, s", lambda r, a: figure(r.first_call_seconds)),
        ("device", "Ran on", _ran_on),
    ]


def _context(result: BenchmarkResult) -> dict[str, Any]:
    """What both templates show."""
    columns = _columns(result)
    calls = sorted({len(r.latency.samples) for r in result.rows if r.latency})
    return {
        "result": result,
        "verdict": verdict(result),
        "columns": columns,
        "rows": [
            (r, [cell(r, _accuracy(result, r)) for *_, cell in columns[: _IDENTITY if r.status == "failed" else None]])
            for r in result.rows
        ],
        "scores": [(_label(result, a), a, {c.name: c for c in a.per_class}) for a in _reference_first(result)],
        "reference": _reference(result),
        "calls": " to ".join(f"{n:,}" for n in sorted({*calls[:1], *calls[-1:]})) or DASH,
        "dash": DASH,
        # A command that holds backticks needs a longer fence around it.
        "fence": "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", result.command + "`"))),
    }


def _pictures(result: BenchmarkResult) -> dict[str, Any]:
    """The SVGs of the page; a row has the same colour in all of them."""
    scores, names = _reference_first(result), result.spec.classes.names
    labels = [*(_label(result, row) for row in result.rows), *(_label(result, found) for found in scores)]
    series = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    smallest = min((r.batch for r in result.rows), default=1)
    marks: list[charts.Point] = []
    spans: dict[int, list[charts.Span]] = {}
    bars: dict[int, list[charts.Bar]] = {}
    for row in result.rows:
        if row.status == "failed" or row.latency is None:
            continue
        time, found, name = row.latency, _accuracy(result, row), (_label(result, row), series[_label(result, row)])
        spans.setdefault(row.batch, []).append(charts.Span(*name, time.p50, time.p90, time.p99))
        if row.images_per_second is not None:
            bars.setdefault(row.batch, []).append(charts.Bar(*name, row.images_per_second))
        if row.batch == smallest and found is not None and found.mean_iou is not None:
            marks.append(charts.Point(*name, time.p50 / row.batch, found.mean_iou))
    classes, matrices = [], []
    for number, found in enumerate(scores):
        label, by_name = _label(result, found), {c.name: c for c in found.per_class}
        ious = [(by_name[n].iou, by_name[n].iou_delta) if n in by_name else (None, None) for n in names]
        classes.append(charts.ClassBars(label, series[label], [v for v, _ in ious], [d for _, d in ious]))
        same = number > 0 and _close(found.confusion, scores[0].confusion)
        matrices.append((label, charts.heat_map(names, found.confusion, label, number), same))
    return {
        "scatter": charts.scatter(marks, smallest),
        "latency": charts.latency(spans),
        "throughput": charts.throughput(bars),
        "per_class": charts.class_bars(names, classes),
        "matrices": matrices,
        "most": charts.MAX_MATRIX,
    }


def _close(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> bool:
    """Whether two matrices would look alike: no cell differs by half a percent of its row."""
    pairs = zip(charts.row_shares(one), charts.row_shares(other), strict=True)
    return all(abs((a or 0) - (b or 0)) < 0.005 for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True))


def _markdown(text: object) -> str:
    """Text that Markdown takes literally, on one line, also inside a table."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(", r"\\\g<0>", text)


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("segdeploy.benchmark", "."),
        autoescape=lambda name: name == "report.html.j2",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"figure": figure, "percent": percent, "points": points, "share": share, "md": _markdown}
    return templates
