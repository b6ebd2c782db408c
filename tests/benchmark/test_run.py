"""The benchmark on a tiny bundle, for real: processes, rounds, accuracy, and rows that fail as they should."""

import numpy as np
import onnxruntime as ort
import pytest

import segdeploy
from segdeploy.benchmark.group import TURN_CALLS
from segdeploy.benchmark.plan import Group
from segdeploy.benchmark.result import parse_result
from segdeploy.benchmark.run import POOL, _save_pool, run_benchmark
from segdeploy.bundle import open_model
from segdeploy.config.schema import Benchmark
from segdeploy.data.table import read_table
from segdeploy.environment import describe_machine
from segdeploy.errors import DataError, MissingPartError
from segdeploy.evaluate import evaluate
from segdeploy.runtime.runner import open_runner
from segdeploy.tables import benchmark_table

QUICK = {"threads": (1,), "seconds": 0, "warmup": 1, "warmup_seconds": 0, "cold_starts": 0}
FAIL = {"crash": "SIGSEGV", "nan": "logits that are NaN", "noclass": "hold 20"}
AMP = ["torch AMP"] if {"amx_bf16", "avx512_bf16"} & set(describe_machine()["cpu_features"]) else []
HONEST = ["torch eager", "torch channels_last", *AMP, "onnxruntime", "shift", "drop", "slow"]


@pytest.fixture(scope="module")
def result(planted, tiny_bundle, tiny_table):
    return run_benchmark(
        open_model(tiny_bundle),
        tiny_table,
        settings=Benchmark(batches=(1,), rounds=2, **QUICK),
        backends=["torch", "onnxruntime", "shift", "drop", "slow", *FAIL],
        compile=False,
    )


def row_of(result, name):
    return next(r for r in result.rows if r.name == name)


def score_of(result, name):
    return next(a for a in result.accuracy if a.name == name)


def test_rows_are_complete(result):
    assert [r.name for r in result.rows] == [*HONEST, *FAIL]
    for name in HONEST:
        row = row_of(result, name)
        assert row.status == "ok", row.reason
        assert row.rounds == len(row.latency.samples) == 2
        assert all(len(calls) >= TURN_CALLS for calls in row.latency.samples)
        assert row.latency.min <= row.latency.p50 <= row.latency.p90 <= row.latency.p99
        assert row.images_per_second == pytest.approx(row.batch / row.latency.p50 * 1e3)
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert row.load_seconds > 0
        assert row.first_call_seconds > 0
        assert row.cold_seconds is None
        assert row.peak_memory_mib > 50
        assert (row.batch, row.threads, row.width, row.height) == (1, 1, 96, 64)
        assert row.file_to_file.p50 > row.latency.min
        assert row.steady is None  # it was not waited for
        assert row.warmup_calls == 1
        assert row.agreement > 0.85
    assert {r.provider for r in result.rows if r.backend == "onnxruntime"} == {"CPUExecutionProvider"}
    assert result.backends["onnxruntime"] == f"segdeploy {segdeploy.__version__}, onnxruntime {ort.__version__}"
    assert row_of(result, "torch eager").artifact_bytes != row_of(result, "onnxruntime").artifact_bytes


def test_engine_time_is_a_part_of_the_same_calls(result):
    for row in (row_of(result, name) for name in HONEST[: HONEST.index("shift")]):
        pairs = zip(row.engine.samples, row.latency.samples, strict=True)
        assert all(0 < own <= whole for a, b in pairs for own, whole in zip(a, b, strict=True))
    assert row_of(result, "slow").engine is None  # a third party's runner need not tell


def test_baseline_is_the_fastest_torch_row_and_has_ratio_one(result):
    torch_rows = [r for r in result.rows if r.backend == "torch"]
    fastest = min(torch_rows, key=lambda r: np.median(np.concatenate(r.latency.samples)))
    assert {r.baseline for r in result.rows} == {result.baseline} == {fastest.name}
    assert fastest.speedup == pytest.approx(1)


def test_a_slow_backend_is_slower_by_its_interval(result):
    row = row_of(result, "slow")
    assert row.latency.min >= 100
    assert row.speedup_high < 1


def test_accuracy_is_what_evaluate_says(result, tiny_bundle, tiny_table):
    bundle = open_model(tiny_bundle)
    for name in ("torch eager", "onnxruntime"):
        score = score_of(result, name)
        with open_runner(bundle, score.backend) as runner:
            expected = evaluate(runner, read_table(tiny_table), bundle.spec).scores
        assert score.mean_iou == pytest.approx(expected.mean_iou, abs=5e-4)
        assert score.boundary_iou == pytest.approx(expected.mean_boundary_iou, abs=2e-3)
        assert [c.pixels for c in score.per_class] == expected.confusion.sum(1).tolist()
        assert score.label_agreement >= 0.999
        assert abs(score.miou_delta) <= 0.0005
    assert result.images == 20


def test_a_lost_tenth_of_the_labels_is_an_accuracy_drop(result):
    score = score_of(result, "drop")
    assert score.label_agreement == pytest.approx(57 / 64, abs=1e-3)  # 7 of the 64 rows of pixels
    assert score.miou_delta < -0.005
    assert min(c.iou_delta for c in score.per_class if c.iou_delta is not None) < -0.03
    assert row_of(result, "drop").status == "ok"  # whether that is too much, a gate decides


def test_one_pixel_to_the_side_shows_at_the_boundaries(result):
    """How clearly, where the model is right: see test_labels.py."""
    score = score_of(result, "shift")
    assert 0.9 < score.label_agreement < 1
    assert score.boundary_delta < 0


@pytest.mark.parametrize(("name", "words"), FAIL.items())
def test_a_fault_is_a_failed_row_with_its_reason_and_no_numbers(result, name, words):
    row = row_of(result, name)
    assert row.status == "failed"
    assert words in row.reason
    assert row.latency is row.speedup is row.images_per_second is row.file_to_file is None
    assert name not in {a.name for a in result.accuracy}
    assert f"failed: {row.reason}" in benchmark_table(result)


def test_worst_images_are_those_that_agree_least(result):
    worst = score_of(result, "shift").worst
    assert 1 <= len(worst) <= 5  # those that agree on every pixel are left out
    assert [p.agreement for p in worst] == sorted(p.agreement for p in worst)
    assert all(p.agreement < 1 and p.disagreement.startswith("data:image/jpeg;base64,") for p in worst)
    own = score_of(result, "torch eager").worst
    assert [p.image_iou for p in own] == sorted(p.image_iou for p in own)
    assert len(own) == 5
    assert {(p.agreement, p.disagreement) for p in own} == {(1.0, None)}


def test_pictures_and_json(result):
    assert 1 <= len(result.pictures) <= 4
    assert [p.image_iou for p in result.pictures] == sorted(p.image_iou for p in result.pictures)
    assert all(
        getattr(p, k).startswith("data:image/jpeg;base64,")
        for p in result.pictures
        for k in ("image", "truth", "predicted", "errors")
    )
    assert parse_result(result.model_dump_json(), "report.json") == result


def test_groups_of_batch_and_threads_of_a_lone_graph(tiny_bundle, tiny_table):
    """Nothing of torch is there."""
    settings = Benchmark(batches=(3, 1), rounds=1, **QUICK | {"threads": (1, 2), "cold_starts": 1})
    result = run_benchmark(
        open_model(tiny_bundle / "model.onnx"), tiny_table, settings=settings, backends=["onnxruntime"], pictures=0
    )
    groups = [(1, 1), (3, 1), (1, 2), (3, 2)]
    assert [(r.batch, r.threads, r.width, r.height, r.status) for r in result.rows] == [
        (*group, 96, 64, "ok") for group in groups
    ]
    assert [(r.file_to_file is None, r.speedup, r.baseline) for r in result.rows] == [
        (False, None, None), (True, None, None), (False, None, None), (True, None, None)
    ]  # fmt: skip
    assert [r.cold_seconds is None for r in result.rows] == [False, True, False, True]
    assert all(r.cold_seconds > r.latency.min / 1e3 for r in result.rows[::2])
    assert (result.baseline, result.pictures, result.accuracy[0].worst) == ("", (), ())
    assert result.accuracy[0].miou_delta is result.accuracy[0].label_agreement is None
    assert "threads" in benchmark_table(result).splitlines()[0]
    assert result.model.startswith("model: ")
    assert {r.agreement for r in result.rows} == {None}


def test_a_bundles_graph_of_fixed_size_says_how_to_free_it(tiny_bundle, tiny_table):
    settings = Benchmark(batches=(1,), sizes=("48x32",), rounds=1, **QUICK)
    result = run_benchmark(open_model(tiny_bundle), tiny_table, settings=settings, backends=["onnxruntime"])
    assert [r.reason for r in result.rows] == [
        "model.onnx takes height 64 only; segdeploy export --dynamic batch,height,width leaves it free"
    ]
    assert (result.accuracy, result.pictures) == ((), ())


def test_a_provider_that_fell_back_and_an_engine_that_hangs(planted, tiny_bundle, tiny_table):
    settings = Benchmark(batches=(1,), rounds=1, **QUICK | {"timeout": 4})
    result = run_benchmark(
        open_model(tiny_bundle), tiny_table, settings=settings, backends=["onnxruntime", "fallback"], device="cuda"
    )
    assert "CUDAExecutionProvider" in row_of(result, "onnxruntime").reason  # refused by the runner itself
    assert row_of(result, "fallback").reason == (
        "it fell back to CPUExecutionProvider, although device cuda was asked for"
    )
    assert [r.status for r in result.rows] == ["failed"] * 2
    result = run_benchmark(open_model(tiny_bundle), tiny_table, settings=settings, backends=["onnxruntime", "hang"])
    assert row_of(result, "onnxruntime").status == "ok"
    assert row_of(result, "hang").reason == "no answer to 'first' within 4 s; stopped"


def test_backend_that_is_not_installed_and_nothing_to_run(tiny_bundle, tiny_run, tiny_table):
    with pytest.raises(MissingPartError, match="did you mean 'torch'"):
        run_benchmark(open_model(tiny_bundle), tiny_table, backends=["torhc"])
    settings = Benchmark(batches=(1,), rounds=1, **QUICK)
    result = run_benchmark(open_model(tiny_run), tiny_table, settings=settings, backends=["onnxruntime", "tensorrt"])
    reasons = [r.reason for r in result.rows]
    assert [r.status for r in result.rows] == ["failed", "failed"]
    assert "run segdeploy export first" in reasons[0]
    assert "GPU" in reasons[1] or "TensorRT" in reasons[1]


def test_broken_table_is_found_before_anything_is_timed(tiny_bundle, tiny_table, tmp_path):
    rows = tiny_table.read_text().splitlines()
    folder = tiny_table.parent
    rows = [rows[0], *[",".join([str(folder / c) for c in r.split(",")[:2]] + ["test"]) for r in rows[1:]]]
    rows[-1] = rows[-1].replace("masks", "no-masks")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    steps = []
    with pytest.raises(DataError, match="no-masks"):
        run_benchmark(open_model(tiny_bundle), tmp_path / "table.csv", progress=lambda *s: steps.append(s[0]))
    assert steps == ["checking the table"]


@pytest.mark.parametrize("images", [20, 5])
def test_inputs_are_eight_batches_that_differ(tiny_bundle, tiny_table, tmp_path, images, monkeypatch):
    bundle, samples, notes = open_model(tiny_bundle), read_table(tiny_table)[:images], []
    for batch in (1, 3, 4, 5, 16, 32):
        pool = np.load(_save_pool(samples, bundle, Group(batch, 1, 64, 96), tmp_path, notes))
        assert pool.shape == (POOL * batch, 64, 96, 3)
        assert len(np.unique(pool.reshape(POOL, -1), axis=0)) == min(POOL, images)
        assert len(np.unique(pool.reshape(POOL * batch, -1), axis=0)) == min(POOL * batch, images)
    assert notes == []
    monkeypatch.setattr("segdeploy.benchmark.run.POOL_BYTES", 3 * 4 * 64 * 96 * 3 + 1)
    pool = np.load(_save_pool(samples, bundle, Group(4, 1, 64, 96), tmp_path, notes))
    assert len(np.unique(pool.reshape(3, -1), axis=0)) == 3
    (note,) = notes
    assert note.startswith("the timed inputs of batch 4, 1 thread, 96x64 are 3 batches")
