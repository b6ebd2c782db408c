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
_AT_ONCE = 1 << 22  # weights in memory at a time


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
    values, owner = values[order], np.repeat(np.arange(len(rounds)), [len(r) for r in rounds])[order]
    counts = rng.multinomial(len(rounds), np.full(len(rounds), 1 / len(rounds)), DRAWS).astype(np.int32)
    medians = []
    for part in np.array_split(counts, max(1, DRAWS * len(values) // _AT_ONCE)):
        reached = np.cumsum(part[:, owner], axis=1) * 2
        half = reached[:, -1:] // 2  # of twice the weights, so of all the calls
        lower, upper = (reached >= half).argmax(axis=1), (reached > half).argmax(axis=1)
        medians.append((values[lower] + values[upper]) / 2)
    return np.concatenate(medians)
