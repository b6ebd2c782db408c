"""From what was measured to the rows of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.benchmark.plan import artifact_of
from segdeploy.benchmark.result import Row
from segdeploy.benchmark.timing import latency, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segdeploy.benchmark.group import Measured
    from segdeploy.bundle import Bundle


def make_rows(measured: Sequence[Measured], bundle: Bundle, unscored: Mapping[str, str]) -> list[Row]:
    """The rows of one group, each with its speed-up over the fastest torch row.

    Args:
        measured: all rows of the group.
        bundle: what they run.
        unscored: by a row's name, why its labels could not be scored: then its times are worth nothing, either.
    """
    for item in measured:
        if item.reason is None and item.entry.name in unscored:
            item.reason = f"its labels could not be scored: {unscored[item.entry.name]}"
    baseline = pick_baseline(measured)
    return [_row(item, bundle, baseline) for item in measured]


def pick_baseline(measured: Sequence[Measured]) -> Measured | None:
    """The fastest of torch's rows, compiled ones included, by their medians."""
    able = [m for m in measured if m.entry.backend == "torch" and m.reason is None and m.rounds]
    return min(able, key=lambda m: float(np.median(np.concatenate(m.rounds))), default=None)


def _row(item: Measured, bundle: Bundle, baseline: Measured | None) -> Row:
    entry, group = item.entry, item.group
    file = artifact_of(bundle, entry, item.runner.get("provider"))
    row = Row(
        name=entry.name,
        backend=entry.backend,
        variant=entry.variant,
        precision=item.runner.get("precision", entry.precision),
        batch=group.batch,
        threads=group.threads,
        height=group.height,
        width=group.width,
        provider=item.runner.get("provider"),
        artifact=file.file if file else None,
        artifact_bytes=file.bytes if file else None,
        baseline=baseline.entry.name if baseline else None,
    )
    if item.reason is not None:
        return row.model_copy(update={"status": "failed", "reason": item.reason})
    found = latency(item.rounds)
    ratio: tuple[float | None, float | None, float | None] = (None, None, None)
    if baseline is not None:
        ratio = paired_ratio(baseline.rounds, item.rounds)
    return row.model_copy(
        update={
            "latency": found,
            "engine": latency(item.engine) if len(item.engine) == len(item.rounds) else None,
            "file_to_file": latency(item.files) if item.files else None,
            "images_per_second": group.batch / found.p50 * 1e3,
            "warmup_calls": item.warmup_calls,
            "steady": item.steady,
            "rounds": len(item.rounds),
            "repeated": item.repeated,
            "disturbed": item.disturbed,
            "speedup": ratio[0],
            "speedup_low": ratio[1],
            "speedup_high": ratio[2],
            "load_seconds": item.load_seconds,
            "first_call_seconds": item.first_call_seconds,
            "cold_seconds": item.cold_seconds,
            "peak_memory_mib": item.peak_memory_mib,
            "device_memory_mib": item.device_memory_mib,
        }
    )
