"""Intervals for the ratio of two runs that did not take turns: the rounds of each are drawn anew on their own.

The percentile bootstrap (Efron 1979). Whole rounds are drawn, not calls: the calls of a round share what the machine
did meanwhile, and would make an interval that is too narrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rounds = Sequence[Sequence[float]]

DRAWS = 2000


def p50_ratio_interval(old: Rounds, new: Rounds, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the median of all calls of `new` over that of `old`.

    Args:
        old, new: milliseconds, one sequence per round; neither the rounds nor their calls need be equally many.
    """
    rng = np.random.default_rng(seed)
    return _interval(_drawn_medians(new, rng) / _drawn_medians(old, rng))


def paired_ratios(base: Rounds, row: Rounds) -> NDArray[np.float64]:
    """The base's median time over the row's, round by round: the row's speed-up in each round, float64 (rounds,)."""
    return np.array([np.median(b) / np.median(r) for b, r in zip(base, row, strict=True)])


def speedup_ratio_interval(old: NDArray[np.float64], new: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the median of `new` over the median of `old`, both from `paired_ratios`."""
    rng = np.random.default_rng(seed)
    drawn = [np.median(rng.choice(ratios, (DRAWS, len(ratios))), axis=1) for ratios in (new, old)]
    return _interval(drawn[0] / drawn[1])


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def _drawn_medians(rounds: Rounds, rng: np.random.Generator) -> NDArray[np.float64]:
    """Medians of all calls of `DRAWS` draws of as many rounds: a round that is drawn twice weighs twice."""
    values = np.concatenate([np.asarray(r, np.float64) for r in rounds])
    order = np.argsort(values)
    owner = np.repeat(np.arange(len(rounds)), [len(r) for r in rounds])[order]
    # How many of the smallest i + 1 calls each round has, (calls, rounds): no draw has to be sorted.
    smallest = np.cumsum(owner[:, None] == np.arange(len(rounds)), axis=0, dtype=np.int32)
    weights = rng.multinomial(len(rounds), np.full(len(rounds), 1 / len(rounds)), DRAWS).astype(np.int32)
    calls = weights @ smallest[-1]
    middle = [_place(smallest, weights, needed) for needed in ((calls + 1) // 2, calls // 2 + 1)]
    return np.asarray(values[order][middle].mean(axis=0))


def _place(smallest: NDArray[np.int32], weights: NDArray[np.int32], needed: NDArray[np.int32]) -> NDArray[np.intp]:
    """By bisection: of each draw, the place of the call with which `needed` calls are reached."""
    low, high = np.zeros(len(weights), np.intp), np.full(len(weights), len(smallest) - 1)
    for _ in range(len(smallest).bit_length()):
        at = (low + high) // 2
        enough = np.einsum("dr,dr->d", smallest[at], weights) >= needed
        low, high = np.where(enough, low, at + 1), np.where(enough, at, high)
    return low
