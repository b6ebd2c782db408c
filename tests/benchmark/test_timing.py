import numpy as np
import pytest

from segdeploy.benchmark.timing import latency, paired_ratio


def test_percentiles_against_a_sorted_list():
    values = [float(v) for v in np.random.default_rng(0).permutation(101)]
    found = latency(values)
    assert (found.p50, found.p90, found.p99) == (50, 90, 99)
    assert (found.mean, found.min) == (50, 0)
    assert found.samples == tuple(values)


def test_ratio_is_taken_within_rounds():
    """The machine slows down tenfold half way; the ratio of each round stays 2, that of pooled medians does not."""
    slow = [1.0] * 10 + [10.0] * 11
    baseline = [[2.0 * s, 2.0 * s, 50.0 * s] for s in slow]
    row = [[1.0 * s, 1.0 * s] for s in slow]
    assert paired_ratio(baseline, row) == (2.0, 2.0, 2.0)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for trial in range(100):
        row = random.lognormal(0, 0.1, (30, 1))
        baseline = 1.3 * random.lognormal(0, 0.1, (30, 1))
        _, low, high = paired_ratio(baseline, row, draws=400, seed=trial)
        hits += low <= 1.3 <= high
    assert 85 <= hits <= 100


def test_equal_rows_give_one():
    same = [[3.0, 4.0], [5.0, 6.0]]
    assert paired_ratio(same, same) == pytest.approx((1, 1, 1))
