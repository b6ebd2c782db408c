"""Numbers from samples: percentiles, and the ratio of two rows that took turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.benchmark.result import Latency

if TYPE_CHECKING:
    from collections.abc import Sequence


def latency(samples_ms: Sequence[float]) -> Latency:
    """Percentiles, mean and minimum of the measured calls, milliseconds; nothing is thrown away."""
    values = np.asarray(samples_ms)
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return Latency(
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        mean=float(values.mean()),
        min=float(values.min()),
        samples=tuple(round(float(v), 4) for v in values),
    )


def paired_ratio(
    baseline: Sequence[Sequence[float]], row: Sequence[Sequence[float]], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """How many times as fast `row` is: median over the rounds of baseline / row, and its 95 % interval.

    Each round gives one ratio, of its two medians, so that what slows a whole round slows both sides.
    The interval is the percentile bootstrap over rounds (Efron 1979).

    Args:
        baseline, row: milliseconds, one sequence per round, equally many rounds.

    Returns:
        (median, low, high); above 1 the row is faster.
    """
    ratios = np.array([np.median(b) / np.median(r) for b, r in zip(baseline, row, strict=True)])
    chosen = np.random.default_rng(seed).integers(0, len(ratios), (draws, len(ratios)))
    medians = np.median(ratios[chosen], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)
