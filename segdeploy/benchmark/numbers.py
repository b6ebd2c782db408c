"""Numbers of a row by their names in `config.gate_metrics`, and a row's own name in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from segdeploy.config.gate_metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segdeploy.benchmark.outcome import RowChange
    from segdeploy.benchmark.result import Accuracy, BenchmarkResult, Row
    from segdeploy.config.gate_metrics import Metric

Key = tuple[str, str, str, int, int, int, int]


def row_key(row: Row | RowChange) -> Key:
    """Backend, variant, precision, batch, threads, height and width: the same row in two reports."""
    return row.backend, row.variant, row.precision, row.batch, row.threads, row.height, row.width


def row_name(row: Row | RowChange) -> str:
    """The row's name, with its precision if that is not plain and not in the name."""
    return row.name if row.precision in (*row.name.split(), "fp32") else f"{row.name} {row.precision}"


def row_label(row: Row | RowChange) -> str:
    """A row in words that hold for no other: "onnxruntime int8, batch 1, 2 threads, 480x352"."""
    threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
    return f"{row_name(row)}, batch {row.batch}, {threads}, {row.width}x{row.height}"


def at_scored_size(result: BenchmarkResult, row: Row) -> bool:
    """Whether the row's images have the model's own size, the only one at which scores are taken."""
    model = result.spec.preprocessing
    return (row.height, row.width) == (model.height, model.width)


def accuracy_of(result: BenchmarkResult, row: Row) -> Accuracy | None:
    """The scores of the row's own backend, variant, precision and size; those of a sister say nothing."""
    if not at_scored_size(result, row):
        return None
    return next((a for a in result.accuracy if (a.name, a.precision) == (row.name, row.precision)), None)


def change_of(result: BenchmarkResult, row: Row) -> RowChange | None:
    """What changed in the row since the older report, if there is one."""
    rows = result.comparison.rows if result.comparison else ()
    return next((c for c in rows if row_key(c) == row_key(row)), None)


def number_of(name: str, result: BenchmarkResult, row: Row) -> float | None:
    """One of the row's metrics, in its unit; of several numbers the worst. None where it is not known.

    Metrics of the whole run are counted in `gates`.
    """
    metric = METRICS[name]
    start, _, path = metric.source.partition(".")
    if start == "change":
        return _change(change_of(result, row), path)
    held = row if start == "row" else accuracy_of(result, row)
    # Adding zero makes the zero of a negative factor a plain one.
    found = [value * metric.factor + 0.0 for value in _numbers(held, path.split("."))]
    return _worst(metric, found)


def _worst(metric: Metric, found: list[float]) -> float | None:
    if not found or any(math.isnan(value) for value in found):
        return None
    return max(found) if metric.better == "lower" else min(found)


def _change(found: RowChange | None, path: str) -> float | None:
    name, _, end = path.partition(".")
    changes = found.changes if found else ()
    return next((getattr(c, end) for c in changes if c.metric == name), None)


def _numbers(held: Any, path: list[str]) -> Iterator[float]:
    """What stands at the path, through every item of a tuple on the way; what is not known is left out."""
    if held is None:
        return
    if isinstance(held, tuple):
        for item in held:
            yield from _numbers(item, path)
    elif path:
        yield from _numbers(getattr(held, path[0]), path[1:])
    else:
        yield float(held)
