import pytest

from segdeploy.benchmark.group import Measured
from segdeploy.benchmark.plan import Entry, Group
from segdeploy.benchmark.rows import make_rows
from segdeploy.bundle import open_model


def measured(name, backend, milliseconds, **changes):
    rounds = [[ms, ms] for ms in milliseconds]
    entry = Entry(name, backend, "compile" if "compile" in name else "")
    return Measured(entry, Group(2, 1, 64, 96), rounds=rounds, engine=rounds, **changes)


@pytest.fixture
def group():
    return [
        measured("torch eager", "torch", [40.0, 80.0]),
        measured("torch compile", "torch", [20.0, 40.0], first_call_seconds=30.0),
        measured("onnxruntime", "onnxruntime", [10.0, 20.0], repeated=3, disturbed=1),
    ]


def test_speed_ups_are_against_the_fastest_torch_row_compiled_or_not(group, tiny_bundle):
    rows = make_rows(group, open_model(tiny_bundle), {})
    assert {r.baseline for r in rows} == {"torch compile"}
    assert [(r.speedup_low, r.speedup, r.speedup_high) for r in rows] == [(0.5,) * 3, (1.0,) * 3, (2.0,) * 3]
    assert rows[1].first_call_seconds == 30
    assert (rows[2].rounds, rows[2].repeated, rows[2].disturbed) == (2, 3, 1)
    assert rows[2].latency.samples == rows[2].engine.samples == ((10.0, 10.0), (20.0, 20.0))
    assert rows[2].images_per_second == pytest.approx(2 / 0.015)
    assert rows[2].artifact == "model.onnx"


def test_a_row_whose_labels_are_worthless_has_no_numbers_and_is_no_baseline(group, tiny_bundle):
    rows = make_rows(group, open_model(tiny_bundle), {"torch compile": "its labels hold 9"})
    assert rows[1].reason == "its labels could not be scored: its labels hold 9"
    assert rows[1].status == "failed"
    assert rows[1].latency is rows[1].speedup is rows[1].first_call_seconds is None
    assert {r.baseline for r in rows} == {"torch eager"}
    assert rows[2].speedup == 4


def test_without_torch_there_is_no_speed_up(group, tiny_bundle):
    (row,) = make_rows(group[2:], open_model(tiny_bundle), {})
    assert (row.baseline, row.speedup, row.speedup_low) == (None, None, None)
    assert row.status == "ok"


def test_an_engine_that_tells_its_time_only_now_and_then_has_none(group, tiny_bundle):
    group[2].engine = group[2].engine[:1]
    assert make_rows(group, open_model(tiny_bundle), {})[2].engine is None
