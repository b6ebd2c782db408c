"""Numbers from samples: percentiles, steadiness, and the ratio of two rows that took turns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.benchmark.result import Latency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW = 5
"""Calls, at least, in a window of the warm-up."""
WINDOW_SECONDS = 0.05
STEADY = 0.02
"""Relative change of the best time from window to window that counts as none."""


def latency(rounds: Sequence[Sequence[float]]) -> Latency:
    """Percentiles, mean and minimum of all measured calls, milliseconds; nothing is thrown away."""
    values = np.concatenate([np.asarray(calls, float) for calls in rounds])
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return Latency(
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        mean=float(values.mean()),
        min=float(values.min()),
        samples=tuple(tuple(round(float(v), 4) for v in calls) for calls in rounds),
    )


def warm_up(call: Callable[[], float], calls: int, patience: float) -> tuple[int, bool]:
    """Call until the best time of a window differs by less than 2 % from that of the window before, twice in a row.

    Args:
        call: gives its own time, milliseconds.
        calls: at least so many.
        patience: seconds after which to give up; 0: make the calls, and do not wait for steadiness.

    Returns:
        how many calls were made, and whether the time was steady in the end.
    """
    ends = time.perf_counter() + patience
    done, still, best = 0, 0, float("inf")
    while done < calls or (still < 2 and time.perf_counter() < ends):
        if not patience:
            call()
            done += 1
            continue
        window: list[float] = []
        while len(window) < WINDOW or sum(window) < WINDOW_SECONDS * 1e3:
            window.append(call())
        still = still + 1 if abs(min(window) / best - 1) < STEADY else 0
        best, done = min(window), done + len(window)
    return done, still >= 2


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
