import numpy as np
import pytest

from segdeploy.benchmark.timing import WINDOW, latency, paired_ratio, warm_up


def test_percentiles_against_a_sorted_list():
    values = [float(v) for v in np.random.default_rng(0).permutation(101)]
    found = latency([values[:40], values[40:]])
    assert (found.p50, found.p90, found.p99) == (50, 90, 99)
    assert (found.mean, found.min) == (50, 0)
    assert found.samples == (tuple(values[:40]), tuple(values[40:]))


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


def test_warm_up_ends_when_the_best_of_a_window_stands_still():
    times = [100.0 / (i // WINDOW + 1) for i in range(4 * WINDOW)]  # 100, 50, 33, 25 and from then on 25
    made = []

    def call():
        made.append(times[len(made)] if len(made) < len(times) else 25.0)
        return made[-1]

    assert warm_up(call, 5, 60) == (6 * WINDOW, True)


def test_warm_up_has_a_floor_and_an_end():
    assert warm_up(lambda: 100.0, 12 * WINDOW, 60) == (12 * WINDOW, True)
    restless = iter(2.0**i for i in range(10_000))
    calls, steady = warm_up(lambda: next(restless), 5, 1e-9)
    assert (calls, steady) == (WINDOW + 1, False)  # 1 + 2 + ... ms, until 50
    assert warm_up(lambda: 1.0, 3, 0) == (3, False)
