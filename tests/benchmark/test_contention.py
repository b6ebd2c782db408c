import os
import time
from dataclasses import replace

import pytest

from segdeploy.benchmark.contention import Usage, _busy, _queued, disturbance, rest, usage

IDLE = Usage(wall=0.0, own=0.0, queued=0.0, busy=0.0, switches=0)


def after(**changes):
    """A second later on two cores, one of which this process had."""
    return replace(Usage(wall=1.0, own=1.0, queued=0.0, busy=1.0, switches=5), **changes)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ({}, None),
        ({"busy": 1.2}, None),
        ({"busy": 1.5}, "other work had 24% of 2 cores"),
        ({"queued": 0.04, "busy": 1.1}, None),
        ({"queued": 0.3, "busy": 1.2}, "waited 23% of the time"),  # no longer than others had the cores
        ({"queued": 0.5}, None),  # its own threads stood in each other's way
        ({"queued": 0.1, "busy": None}, "waited 10% of the time"),
        ({"queued": None, "busy": None}, None),
        ({"queued": None, "busy": None, "switches": 300}, "300 times a second"),
        ({"switches": 300}, None),
    ],
)
def test_what_counts_as_a_disturbance(later, words):
    found = disturbance(IDLE, after(**later), threads=2, cores=2)
    assert found is None if words is None else words in found


def test_the_hundredths_of_proc_stat_disturb_nobody():
    """In a turn of a tenth of a second a reading may be off by three of them."""
    assert disturbance(IDLE, after(wall=0.1, own=0.1, busy=0.14), 1, cores=2) is None
    assert disturbance(IDLE, after(wall=0.1, own=0.1, busy=0.2), 1, cores=2) is not None


@pytest.mark.parametrize(
    ("threads", "cores", "limit"), [(1, 64, 0.23), (4, 64, 0.53), (64, 64, 6.43), (1, 1, 0.13), (4, 2, 0.23)]
)
def test_the_limit_is_set_in_cores_that_matter(threads, cores, limit):
    """A tenth of the row's own and one more: on 64 cores six busy ones are no little thing for a row of one thread."""
    assert disturbance(IDLE, after(busy=1 + limit - 0.01), threads, cores) is None
    assert "other work" in disturbance(IDLE, after(busy=1 + limit + 0.01), threads, cores)


def test_kernels_files_are_read_as_proc_5_says(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu 9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 5000 700 1 2 40 9 9\ncpu1 1 1 1 1 1 1 1 1 1 1\nbtime 7\n")
    tick = os.sysconf("SC_CLK_TCK")
    assert _busy(stat, {0}) == pytest.approx((100 + 20 + 30 + 1 + 2 + 40) / tick)
    assert _busy(stat, {0, 1}) == pytest.approx((193 + 6) / tick)
    assert _busy(tmp_path / "none", {0}) is None
    for task, words in (("7", "500 2000000000 3"), ("8", "1 500000000 1")):
        (tmp_path / "task" / task).mkdir(parents=True)
        (tmp_path / "task" / task / "schedstat").write_text(words)
    assert _queued(tmp_path / "task") == pytest.approx(2.5)
    assert _queued(tmp_path / "none") is None


def test_clocks_go_on():
    before = usage()
    while time.process_time() < before.own + 0.05:
        pass
    later = usage()
    assert later.wall > before.wall
    assert later.own >= before.own + 0.05


def test_rest_waits_for_no_longer_than_it_has_patience():
    began = time.perf_counter()
    rest()
    assert time.perf_counter() - began < 5  # 0.3, and what others take
