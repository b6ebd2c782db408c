"""From what was measured to the rows of a result."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.benchmark.plan import artifact_of
from segdeploy.benchmark.result import Row
from segdeploy.benchmark.timing import latency, paired_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segdeploy.benchmark.group import Measured
    from segdeploy.bundle import Bundle


LOST, KEPT = 0.5, 0.9
"""Of the pixels: a row that agrees with torch on fewer of the timed inputs than the one, and was scored with more than
the other, was timed on something that it does not compute."""


def make_rows(
    measured: Sequence[Measured],
    bundle: Bundle,
    unscored: Mapping[str, str],
    agreements: Mapping[str, float | None] = MappingProxyType({}),
) -> list[Row]:
    """The rows of one group, each with its speed-up over the fastest torch row.

    Args:
        measured: all rows of the group.
        bundle: what they run.
        unscored: by a row's name, why its labels could not be scored: then its times are worth nothing, either.
        agreements: by a row's name, the share of pixels with torch's class, where it was scored.
    """
    for item in measured:
        if item.reason is None and item.entry.name in unscored:
            item.reason = f"its labels could not be scored: {unscored[item.entry.name]}"
        elif item.reason is None:
            item.reason = _lost(item, bundle, agreements.get(item.entry.name))
    baseline = pick_baseline(measured)
    return [_row(item, bundle, baseline) for item in measured]


def _lost(item: Measured, bundle: Bundle, scored: float | None) -> str | None:
    """Why the labels of the timed inputs are no good, although those of the scored ones are."""
    if item.agreement is None or scored is None or item.agreement >= LOST or scored <= KEPT:
        return None
    group, model = item.group, bundle.spec.preprocessing
    at = f"at batch {group.batch}, {group.width}x{group.height}"
    return (
        f"{at}, only {item.agreement:.1%} of the pixels agree with torch, but {scored:.1%} where it was scored, "
        f"at batch 1, {model.width}x{model.height}"
    )


def _precision(item: Measured) -> str:
    """What the runner says that it computes in; where none was opened, what it would have said."""
    entry = item.entry
    amp = entry.backend == "torch" and entry.variant.endswith("amp")
    return str(item.runner.get("precision") or ("fp16" if amp and item.on_gpu else "bf16" if amp else entry.precision))


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
        precision=_precision(item),
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
    fastest = None
    if baseline is not None:
        ratio = paired_ratio(baseline.rounds, item.rounds)
        fastest = latency(baseline.rounds).min / found.min
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
            "file_disturbed": item.file_disturbed,
            "agreement": item.agreement,
            "speedup": ratio[0],
            "speedup_low": ratio[1],
            "speedup_high": ratio[2],
            "speedup_of_fastest": fastest,
            "load_seconds": item.load_seconds,
            "first_call_seconds": item.first_call_seconds,
            "cold_seconds": item.cold_seconds,
            "peak_memory_mib": item.peak_memory_mib,
            "device_memory_mib": item.device_memory_mib,
        }
    )
