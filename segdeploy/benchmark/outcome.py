"""What became of a benchmark: gates that were held against it, and what changed since an older one.

Both are parts of a `BenchmarkResult`, so that its pages need nothing else.
"""

from __future__ import annotations

from typing import Literal

from segdeploy.frozen import Frozen

Verdict = Literal[
    "slower",
    "faster",
    "no measurable change",
    "too few rounds",
    "not comparable",
    "new",
    "gone",
    "fails now",
    "works again",
    "failed in both",
]


class GateCheck(Frozen):
    """One gate held against one row, or against the run."""

    gate: str
    """As in the command line, without spaces: "p99_ms[backend=onnxruntime]<=25"."""
    row: str
    """Which row, in words: "onnxruntime int8, batch 1, 1 thread"; "all rows" for a number of the whole run."""
    metric: str
    unit: str
    operator: Literal["<=", "<", ">=", ">", "=="]
    limit: float
    value: float | None
    """None: the row failed, or has no such number; the gate is not kept then."""
    passed: bool
    message: str
    """One line: row, value and limit, or why there is no value."""


class Change(Frozen):
    """One number before and after."""

    metric: str
    """Its name among the metrics of gates: "p50_ms", "miou"."""
    unit: str
    kind: Literal["ratio", "difference"]
    """How `change` is counted: new / old - 1 (0.05: 5 % more), or new - old (0.01: one point of a fraction)."""
    old: float | None
    new: float | None
    change: float | None = None
    """None where a side is missing, or where the two cannot be compared."""
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval of `change`, for times with enough rounds."""


class RowChange(Frozen):
    """One row before and after; a row is the same where backend, variant, precision, batch, threads and size are."""

    name: str
    backend: str
    variant: str
    precision: str
    provider: str | None
    """What really ran, in the newer report if the row is there."""
    batch: int
    threads: int
    height: int
    width: int
    verdict: Verdict
    """About its time; slower and faster are claimed only where the interval allows nothing else."""
    why: str
    """The verdict in numbers and plain words."""
    changes: tuple[Change, ...] = ()
    """Numbers that at least one side has; empty for rows that came, went or failed."""


class Comparison(Frozen):
    """What changed since an older report."""

    against: str
    """The older report's file."""
    created: str
    """When it was measured: UTC, ISO 8601."""
    verdict: str
    """What changed, in plain words."""
    times_differ: tuple[str, ...] = ()
    """Why times of the two cannot be compared at all: another CPU, another GPU, another number of cores."""
    accuracy_differs: tuple[str, ...] = ()
    """Why scores of the two cannot be compared: other data, other classes, counted at another size."""
    differences: tuple[str, ...] = ()
    """What else is not the same, and may be the cause of a change: versions, rounds, the model."""
    rows: tuple[RowChange, ...]
    """In the order of the new report; rows that are gone stand last."""
