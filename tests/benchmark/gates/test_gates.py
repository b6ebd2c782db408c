from pathlib import Path

import pytest

from segdeploy.benchmark.compare import compare
from segdeploy.benchmark.gates import check_selectors, hold, raise_broken, selectable
from segdeploy.benchmark.numbers import accuracy_of, number_of, row_label
from segdeploy.benchmark.result import Accuracy, ClassScore, Latency, Picture, Row
from segdeploy.bundle import Bundle
from segdeploy.config.gate_metrics import METRICS
from segdeploy.config.gates import parse_gate
from segdeploy.config.schema import Benchmark
from segdeploy.errors import ConfigError, GateError


def held(result, *texts):
    return hold([parse_gate(t) for t in texts], result)


def broken(result, *texts):
    return [(c.gate, c.row.partition(",")[0]) for c in held(result, *texts) if not c.passed]


def by_hand(made):
    """One row and its scores with numbers that are all different."""

    def times(start):
        keys = ("p50", "p90", "p99", "mean", "min")
        return Latency(**{k: start + i for i, k in enumerate(keys)}, samples=((start,),))

    def seen(name, agreement):
        data = {"image_iou": 0.5, "image": "", "truth": "", "predicted": "", "errors": ""}
        return Picture(name=name, agreement=agreement, **data)

    def score(name, iou_delta, boundary_delta):
        return ClassScore(
            name=name, iou=0.5, accuracy=0.5, precision=0.5, pixels=9, iou_delta=iou_delta,
            boundary_delta=boundary_delta,
        )  # fmt: skip

    row = Row(
        name="onnxruntime", backend="onnxruntime", variant="", precision="fp32", batch=2, threads=1, height=200,
        width=200, provider="CPUExecutionProvider", latency=times(10), engine=times(20), file_to_file=times(30),
        images_per_second=200, disturbed=3, speedup=1.5, speedup_low=1.4, speedup_high=1.6, artifact_bytes=3 * 2**19,
        load_seconds=0.25, first_call_seconds=0.125, cold_seconds=0.75, peak_memory_mib=321.5, device_memory_mib=77.5,
    )  # fmt: skip
    accuracy = Accuracy(
        name="onnxruntime", backend="onnxruntime", precision="fp32", images=1, mean_iou=0.7, pixel_accuracy=0.9,
        mean_class_accuracy=0.8, miou_delta=-0.01, boundary_iou=0.6, boundary_delta=-0.02, label_agreement=0.98,
        worst=(seen("a", 0.91), seen("b", 0.94), seen("c", None)),
        per_class=(score("sky", -0.03, 0.0), score("road", 0.01, -0.05), score("car", None, None)), confusion=(),
    )  # fmt: skip
    return made().model_copy(update={"rows": (row,), "accuracy": (accuracy,)}), row


BY_HAND = {
    "miou": 0.7, "miou_drop": 0.01, "worst_class_drop": 0.03, "boundary": 0.6, "boundary_drop": 0.02,
    "worst_boundary_drop": 0.05, "pixel_accuracy": 0.9, "agreement": 0.98, "worst_image_agreement": 0.91,
    "p50_ms": 10, "p90_ms": 11, "p99_ms": 12, "mean_ms": 13, "min_ms": 14, "engine_p50_ms": 20, "engine_p99_ms": 22,
    "file_p50_ms": 30, "file_p99_ms": 32, "images_per_second": 200, "speedup": 1.5, "speedup_low": 1.4, "load_s": 0.25,
    "first_call_s": 0.125, "cold_s": 0.75, "size_mib": 1.5, "memory_mib": 321.5, "device_memory_mib": 77.5,
    "disturbed_rounds": 3,
}  # fmt: skip


def test_every_metric_of_a_row(made):
    result, row = by_hand(made)
    assert {m for m, about in METRICS.items() if not about.source.startswith(("run.", "change."))} == set(BY_HAND)
    for name, value in BY_HAND.items():
        assert number_of(name, result, row) == value, name


CHANGED = {
    "p50_change": 0.1, "p99_change": 0.25, "engine_p50_change": -0.5, "file_p50_change": 1.0, "load_change": 3.0,
    "first_call_change": 1.0, "cold_change": -0.25, "size_change": 1.0, "memory_change": -0.5,
    "device_memory_change": 0.5, "miou_change": 0.1, "boundary_change": -0.2, "agreement_change": 0.01,
}  # fmt: skip


def test_every_metric_of_a_change(made):
    old, row = by_hand(made)
    latency, engine, files = row.latency, row.engine, row.file_to_file
    after = row.model_copy(
        update={
            "latency": latency.model_copy(update={"p50": 11.0, "p99": 15.0}),
            "engine": engine.model_copy(update={"p50": 10.0}), "file_to_file": files.model_copy(update={"p50": 60.0}),
            "load_seconds": 1.0, "first_call_seconds": 0.25, "cold_seconds": 0.5625, "artifact_bytes": 3 * 2**20,
            "peak_memory_mib": 160.75, "device_memory_mib": 116.25,
        }
    )  # fmt: skip
    scores = old.accuracy[0].model_copy(update={"mean_iou": 0.8, "boundary_iou": 0.4, "label_agreement": 0.99})
    new = old.model_copy(update={"rows": (after,), "accuracy": (scores,)})
    new = new.model_copy(update={"comparison": compare(new, old, "old.json")})
    # Those of intervals and of torch need rounds, see test_compare.
    known = {m for m, about in METRICS.items() if about.source.startswith("change.")}
    assert known == {*CHANGED, "p50_change_low", "p50_change_high", "speedup_change"}
    for name, value in CHANGED.items():
        assert number_of(name, new, after) == pytest.approx(value, abs=1e-12), name


def test_scores_of_a_sister_do_not_count(made):
    result = made()
    row = result.rows[2]
    other = row.model_copy(update={"name": "onnxruntime other"})
    assert accuracy_of(result, row).name == "onnxruntime"
    assert accuracy_of(result, other) is None
    assert number_of("miou", result, other) is None


def test_scores_of_another_size_do_not_count(made, change):
    result = change(made(), "onnxruntime", height=100, width=300)
    assert accuracy_of(result, result.rows[2]) is None
    (check,) = held(result, "miou[precision=fp32]>=0")
    assert not check.passed
    assert check.message.endswith(
        "the score was taken at 200x200 only; [height=200,width=200] selects rows of that size"
    )
    assert [c.passed for c in held(result, "p50_ms[precision=fp32]<=1000")] == [True]


def test_a_number_that_is_none_is_not_known(made):
    result, row = by_hand(made)
    (found,) = result.accuracy
    broken_class = found.per_class[1].model_copy(update={"iou_delta": float("nan")})
    found = found.model_copy(update={"per_class": (found.per_class[0], broken_class), "mean_iou": float("nan")})
    result = result.model_copy(update={"accuracy": (found,)})
    assert number_of("worst_class_drop", result, row) is None
    assert number_of("miou", result, row) is None


def test_planted_slow_backend(made):
    gates = ("p99_ms<=15", "speedup>=1.2", "miou_drop<=0.003")
    assert broken(made(), *gates) == []
    slow = made({"torch eager": 20.0, "torch channels_last": 16.0, "onnxruntime": 16.0, "onnxruntime int8": 6.0})
    assert broken(slow, *gates) == [("p99_ms<=15", "onnxruntime"), ("speedup>=1.2", "onnxruntime")]


def test_planted_accuracy_drop(made, labels):
    worse = labels()
    worse[:, :20] = 1
    result = made(maps={"onnxruntime int8": worse})
    gates = ("miou_drop<=0.003", "agreement>=0.99", "worst_class_drop<=0.01", "p99_ms<=15")
    assert broken(result, *gates) == [(g, "onnxruntime int8") for g in gates[:3]]


def test_planted_shift_of_one_pixel(made, labels):
    result = made(maps={"onnxruntime": labels(1)})
    assert broken(result, "boundary_drop<=0.03", "miou_drop<=0.03") == [("boundary_drop<=0.03", "onnxruntime")]


def test_a_score_is_held_once_for_all_batches(made, labels, change):
    result = made(batches=(1, 4), maps={"onnxruntime int8": labels(1)})
    checks = held(result, "boundary_drop<=0.03", "p50_ms<=1000")
    assert [c.row for c in checks[:2]] == ["onnxruntime", "onnxruntime int8"]
    assert [c.passed for c in checks[:2]] == [True, False]
    assert len(checks) == 2 + 4
    rows = list(result.rows)
    rows[6] = rows[6].model_copy(update={"status": "failed", "reason": "out of memory"})
    (check,) = held(result.model_copy(update={"rows": tuple(rows)}), "miou[precision=fp32]>=0")
    assert not check.passed
    assert check.message == (
        "onnxruntime: miou is not known: onnxruntime, batch 4, 1 thread, 200x200: the row failed: out of memory"
    )


def test_torch_rows_are_held_only_if_named(made):
    result = made()
    assert [c.row.partition(",")[0] for c in held(result, "p50_ms<=100")] == ["onnxruntime", "onnxruntime int8"]
    named = held(result, "p50_ms[backend=torch]<=100", "p50_ms[name=torch eager]<=100")
    assert [c.row.partition(",")[0] for c in named] == ["torch eager", "torch channels_last", "torch eager"]
    assert len(held(result, "p50_ms[backend=*]<=100")) == 4


@pytest.mark.parametrize(
    ("selector", "rows"),
    [
        ("batch=1", ["onnxruntime, batch 1", "onnxruntime int8, batch 1"]),
        ("batch=4,precision=INT8", ["onnxruntime int8, batch 4"]),
        ("provider=cpu*", [f"onnxruntime{p}, batch {b}" for b in (1, 4) for p in ("", " int8")]),
        ("name=onnxruntime", ["onnxruntime, batch 1", "onnxruntime, batch 4"]),
        ("threads=1,height=200,width=200,variant=int?,batch=4", []),
    ],
)
def test_selectors(made, selector, rows):
    checks = held(made(batches=(1, 4)), f"p50_ms[{selector}]<=1000")
    assert [c.row.rpartition(", 1 thread")[0] for c in checks if c.value is not None] == rows
    assert all(c.passed for c in checks) == bool(rows)


def test_a_selector_without_a_row_is_not_kept(made):
    (check,) = held(made(), "p50_ms[backend=tensorrt]<=1000")
    assert not check.passed
    assert check.value is None
    assert "p50_ms[backend=tensorrt]<=1000 selects no row; there are: torch eager, batch 1, 1 thread" in check.message
    (alone,) = held(made({"torch eager": 20.0}), "p50_ms<=1000")
    assert not alone.passed
    (none,) = held(made(), "failed_rows[backend=tensorrt]==0")
    assert not none.passed


def test_a_failed_row_keeps_no_gate(made):
    result = made({"torch eager": 20.0, "onnxruntime": 10.0, "onnxruntime int8": None})
    for gate in ("p50_ms<=1000", "miou_drop<=1", "load_s<=1000", "size_mib<=1000"):
        good, bad = held(result, gate)
        assert good.passed
        assert not bad.passed
        assert bad.message.endswith("is not known: the row failed: the engine crashed")
    assert broken(result, "failed_rows==0") == [("failed_rows==0", "all rows")]
    (check,) = held(result, "failed_rows==0")
    assert check.value == 1
    assert "failed_rows is 1 (onnxruntime int8, batch 1, 1 thread, 200x200), expected == 0" in check.message
    assert broken(result, "failed_rows[precision=fp32]==0", "failed_rows<=1") == []


def test_a_failed_row_keeps_no_gate_although_it_has_the_number(made, change):
    result = change(made(), "onnxruntime", status="failed", reason="not every round was measured")
    assert broken(result, "p50_ms[precision=fp32]<=1000") == [("p50_ms[precision=fp32]<=1000", "onnxruntime")]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("device_memory_mib<=1e9", "batch 1, 1 thread, 200x200: device_memory_mib is not known: it was not measured"),
        ("speedup>=0", "speedup is not known: it needs a row of torch to compare with"),
        ("miou_drop<=1", "miou_drop is not known: it needs a row of torch to compare with"),
        ("p50_change<=9", "p50_change is not known: there is no older report"),
        ("slower_rows==0", "slower_rows is not known: it selects no row of the older report"),
        ("lost_rows==0", "lost_rows is not known: it selects no row of the older report"),
    ],
)  # fmt: skip
def test_a_number_that_is_not_known_keeps_no_gate(made, change, gate, said):
    result = change(made(), "onnxruntime", speedup=None)
    accuracy = tuple(a.model_copy(update={"miou_delta": None}) for a in result.accuracy)
    check = held(result.model_copy(update={"accuracy": accuracy}), gate)[0]
    assert not check.passed
    assert check.value is None
    assert said in check.message


def test_a_line_says_row_value_and_limit(made, change):
    result = made()
    row = next(r for r in result.rows if r.name == "onnxruntime")
    exact = row.latency.model_copy(update={"p99": 31.2})
    (check,) = held(change(result, "onnxruntime", latency=exact), "p99_ms[precision=fp32]<=25")
    assert check.message == "onnxruntime, batch 1, 1 thread, 200x200: p99_ms is 31.2 ms, expected <= 25"
    # Rounding must not show a value that looks as if it had kept its limit.
    near = row.latency.model_copy(update={"p99": 25.00001})
    (check,) = held(change(result, "onnxruntime", latency=near), "p99_ms[precision=fp32]<=25")
    assert "p99_ms is 25.00001 ms, expected <= 25" in check.message


def test_the_error_has_a_line_for_each_broken_gate(made):
    checks = held(made(), "p99_ms<=1", "speedup>=1", "miou_drop<=0.01")
    with pytest.raises(GateError) as caught:
        raise_broken(checks)
    head, *lines = str(caught.value).splitlines()
    assert head == "2 of 6 gates not kept:"
    assert [line.strip() for line in lines] == [c.message for c in checks[:2]]
    assert caught.value.exit_code == 3
    raise_broken(checks[2:])
    raise_broken(())


@pytest.fixture
def bundle(made):
    return Bundle(Path("model"), made().spec, ())


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("p99_ms[backend=onxruntime]<=1", "no row will have backend 'onxruntime'; did you mean 'onnxruntime'?"),
        ("p99_ms[precision=int4]<=1", "no row will have precision 'int4'; did you mean 'int8'?"),
        ("p99_ms[batch=8]<=1", "no row will have batch '8'; known: 1, 4"),
        ("p99_ms[threads=2]<=1", "no row will have threads '2'; known: 1, 3"),
        ("p99_ms[height=200,width=100]<=1", "no row will have width '100'; did you mean '200'?"),
        ("p50_change<=0.05", "needs an older report, see --compare"),
        ("slower_rows==0", "needs an older report, see --compare"),
    ],
)
def test_gates_that_no_row_could_keep_are_refused_at_once(bundle, gate, said):
    known = selectable(bundle, Benchmark(batches=(1, 4), threads=(1, 3)), None)
    with pytest.raises(ConfigError) as caught:
        check_selectors([parse_gate(gate), parse_gate("miou>=0")], known, compares=False)
    assert str(caught.value) == f"gate {gate}: {said}"


def test_gates_that_rows_can_keep_are_not_refused(bundle):
    known = selectable(bundle, Benchmark(batches=(1, 4), sizes=("64x32", "96x32")), ["onnxruntime", "torch"])
    gates = ["p99_ms[backend=onnx*,precision=int8,batch=4,width=96,provider=any]<=1", "p50_change<=0", "lost_rows==0"]
    check_selectors([parse_gate(t) for t in gates], known, compares=True)
    with pytest.raises(ConfigError, match="no row will have backend 'tensorrt'"):
        check_selectors([parse_gate("miou[backend=tensorrt]>=0")], known, compares=True)


def test_labels_hold_for_one_row_only(made):
    rows = made(batches=(1, 4)).rows
    assert len({row_label(r) for r in rows}) == len(rows)
    assert row_label(rows[-1]) == "onnxruntime int8, batch 4, 1 thread, 200x200"
    assert row_label(rows[0].model_copy(update={"precision": "bf16", "threads": 2})).startswith(
        "torch eager bf16, batch 1, 2 threads"
    )
