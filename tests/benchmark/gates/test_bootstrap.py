import numpy as np
import pytest
from scipy import stats

from segdeploy.benchmark.bootstrap import p50_ratio_interval, paired_ratios, speedup_ratio_interval


def by_scipy(new, old):
    found = stats.bootstrap(
        (new, old),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        n_resamples=4000, paired=False, method="percentile", vectorized=True, rng=np.random.default_rng(3),
    )  # fmt: skip
    return found.confidence_interval


@pytest.fixture
def two():
    rng = np.random.default_rng(0)
    return rng.lognormal(2.0, 0.2, 41), rng.lognormal(2.2, 0.1, 30)


def test_intervals_are_those_of_scipy(two):
    old, new = two
    expected = by_scipy(new, old)
    width = expected.high - expected.low
    for found in (
        p50_ratio_interval([[v] for v in old], [[v] for v in new]),
        # The same calls several times in a round are no further evidence.
        p50_ratio_interval([[v] * 7 for v in old], [[v] * 7 for v in new]),
        speedup_ratio_interval(old, new),
    ):
        assert found == pytest.approx(tuple(expected), abs=width * 0.07)


def test_rounds_are_drawn_whole_and_weigh_by_their_calls():
    # Half of the rounds are slow: the median of all calls is one or the other, whatever the calls within a round say.
    rounds = [[10.0, 10.0]] * 6 + [[20.0, 20.0, 20.0]] * 6
    low, high = p50_ratio_interval([[10.0]] * 12, rounds)
    assert (low, high) == (1.0, 2.0)


def test_medians_of_draws_are_plain_medians():
    # One round, so every draw is that round: the interval is the ratio of the two medians.
    old, new = [[4.0, 1.0, 3.0, 2.0]], [[5.0, 9.0, 7.0]]
    assert p50_ratio_interval(old, new) == (7.0 / 2.5, 7.0 / 2.5)


def test_ratios_are_of_one_round():
    assert paired_ratios([[8.0, 9.0, 1.0], [6.0]], [[4.0], [1.0, 2.0]]).tolist() == [2.0, 4.0]
