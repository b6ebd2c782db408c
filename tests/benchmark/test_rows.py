import pytest

from segdeploy.benchmark.group import Measured
from segdeploy.benchmark.plan import Entry, Group
from segdeploy.benchmark.rows import make_rows
from segdeploy.bundle import open_model


def measured(name, backend, milliseconds, variant="", **changes):
    rounds = [[ms, ms] for ms in milliseconds]
    entry = Entry(name, backend, variant or ("compile" if "compile" in name else ""))
    return Measured(entry, Group(2, 1, 64, 96), rounds=rounds, engine=rounds, **changes)


@pytest.fixture
def group():
    return [
        measured("torch eager", "torch", [40.0, 80.0]),
        measured("torch compile", "torch", [20.0, 40.0], first_call_seconds=30.0),
        measured("onnxruntime", "onnxruntime", [10.0, 20.0], repeated=3, disturbed=1, file_disturbed=4, agreement=0.75),
    ]


def test_speed_ups_are_against_the_fastest_torch_row_compiled_or_not(group, tiny_bundle):
    rows = make_rows(group, open_model(tiny_bundle), {})
    assert {r.baseline for r in rows} == {"torch compile"}
    assert [(r.speedup_low, r.speedup, r.speedup_high) for r in rows] == [(0.5,) * 3, (1.0,) * 3, (2.0,) * 3]
    assert rows[1].first_call_seconds == 30
    assert (rows[2].rounds, rows[2].repeated, rows[2].disturbed) == (2, 3, 1)
    assert (rows[2].file_disturbed, rows[2].agreement) == (4, 0.75)
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


def test_the_fastest_calls_are_a_second_estimate(group, tiny_bundle):
    group[2].rounds = [[10.0, 4.0, 10.0], [20.0, 20.0, 20.0]]
    row = make_rows(group, open_model(tiny_bundle), {})[2]
    assert (row.speedup, row.speedup_of_fastest) == (2, 5)  # 20 / 10 and 40 / 20; 20 / 4


@pytest.mark.parametrize(
    ("timed", "scored", "fails"), [(0.4, 1.0, True), (0.6, 1.0, False), (0.4, 0.85, False), (0.4, None, False)]
)
def test_a_row_that_computes_something_else_in_a_batch_has_failed(group, tiny_bundle, timed, scored, fails):
    group[2].agreement = timed
    row = make_rows(group, open_model(tiny_bundle), {}, {"onnxruntime": scored})[2]
    where = "at batch 2, 96x64, only 40.0% of the pixels agree with torch, "
    said = where + "but 100.0% where it was scored, at batch 1, 96x64"
    assert row.reason == (said if fails else None)
    assert (row.latency is None) == fails


@pytest.mark.parametrize(("on_gpu", "precision"), [(True, "fp16"), (False, "bf16")])
def test_amp_that_was_never_opened_has_the_precision_that_it_would_have(tiny_bundle, on_gpu, precision):
    rows = [measured("torch " + v, "torch", [], v, reason="no memory", on_gpu=on_gpu) for v in ("amp", "compile_amp")]
    rows += [measured("torch eager", "torch", [], reason="no memory", on_gpu=on_gpu)]
    assert [r.precision for r in make_rows(rows, open_model(tiny_bundle), {})] == [precision, precision, "fp32"]


def test_without_torch_there_is_no_speed_up(group, tiny_bundle):
    (row,) = make_rows(group[2:], open_model(tiny_bundle), {})
    assert (row.baseline, row.speedup, row.speedup_low) == (None, None, None)
    assert row.status == "ok"


def test_an_engine_that_tells_its_time_only_now_and_then_has_none(group, tiny_bundle):
    group[2].engine = group[2].engine[:1]
    assert make_rows(group, open_model(tiny_bundle), {})[2].engine is None
