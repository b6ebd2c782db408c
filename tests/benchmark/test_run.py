"""The benchmark on a tiny bundle, for real: processes, rounds, accuracy, failed rows."""

import numpy as np
import onnxruntime as ort
import pytest

import segdeploy
from segdeploy.benchmark.process import RowError, WorkerProcess
from segdeploy.benchmark.result import parse_result
from segdeploy.benchmark.run import run_benchmark
from segdeploy.benchmark.settings import benchmark_settings
from segdeploy.bundle import open_model
from segdeploy.config.schema import Benchmark
from segdeploy.data.table import read_table
from segdeploy.errors import ConfigError, DataError, MissingPartError
from segdeploy.evaluate import evaluate
from segdeploy.plugin import Availability, BackendPlugin, registry
from segdeploy.runtime.runner import open_runner
from segdeploy.tables import benchmark_table

SETTINGS = Benchmark(batches=(1, 3), threads=1, rounds=3, warmup=1)
OURS = ("torch", "onnxruntime")  # third parties' may be installed beside them


@pytest.fixture(scope="module")
def result(tiny_bundle, tiny_table):
    steps = []
    return run_benchmark(
        open_model(tiny_bundle),
        tiny_table,
        settings=SETTINGS,
        backends=OURS,
        compile=False,
        progress=lambda *s: steps.append(s),
    )


def test_rows_are_complete(result):
    assert [(r.name, r.batch) for r in result.rows] == [
        (name, batch) for batch in (1, 3) for name in ("torch eager", "torch channels_last", "onnxruntime")
    ]
    for row in result.rows:
        assert row.status == "ok", row.reason
        assert len(row.latency.samples) >= 3 * 2
        assert row.latency.min <= row.latency.p50 <= row.latency.p90 <= row.latency.p99
        assert row.images_per_second == pytest.approx(row.batch / row.latency.p50 * 1e3)
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert row.load_seconds > 0
        assert row.peak_memory_mib > 50
        assert row.threads == 1
    assert {r.provider for r in result.rows if r.backend == "onnxruntime"} == {"CPUExecutionProvider"}
    assert result.backends["onnxruntime"] == f"segdeploy {segdeploy.__version__}, onnxruntime {ort.__version__}"
    sizes = {r.backend: r.artifact_bytes for r in result.rows}
    assert sizes["torch"] != sizes["onnxruntime"]


def test_baseline_is_the_faster_plain_torch_row_and_has_ratio_one(result):
    torch_rows = [r for r in result.rows if r.backend == "torch" and r.batch == 1]
    fastest = min(torch_rows, key=lambda r: np.median(r.latency.samples))
    assert result.baseline == fastest.name
    assert fastest.speedup == pytest.approx(1)


def test_accuracy_is_what_evaluate_says(result, tiny_bundle, tiny_table):
    bundle = open_model(tiny_bundle)
    for score in result.accuracy:
        with open_runner(bundle, score.backend) as runner:
            expected = evaluate(runner, read_table(tiny_table), bundle.spec).scores
        assert score.mean_iou == pytest.approx(expected.mean_iou, abs=5e-4)
        assert [c.pixels for c in score.per_class] == expected.confusion.sum(1).tolist()
        assert score.label_agreement >= 0.999
        assert abs(score.miou_delta) <= 0.0005
    assert result.images == 20


def test_pictures_and_json(result):
    assert 1 <= len(result.pictures) <= 4
    assert [p.image_iou for p in result.pictures] == sorted(p.image_iou for p in result.pictures)
    assert all(
        getattr(p, k).startswith("data:image/jpeg;base64,")
        for p in result.pictures
        for k in ("image", "truth", "predicted", "errors")
    )
    assert parse_result(result.model_dump_json(), "report.json") == result
    table = benchmark_table(result)
    assert len(table.splitlines()) == 2 + len(result.rows)


def test_run_folder_has_torch_rows_alone(tiny_run, tiny_table):
    settings = Benchmark(batches=(1,), threads=1, rounds=1, warmup=0)
    result = run_benchmark(open_model(tiny_run), tiny_table, settings=settings, compile=False)
    assert {r.backend for r in result.rows} == {"torch"}
    assert any("onnxruntime was left out" in n for n in result.notes)


def test_lone_onnx_file(tiny_bundle, tiny_table):
    settings = Benchmark(batches=(1,), threads=1, rounds=1, warmup=0)
    result = run_benchmark(open_model(tiny_bundle / "model.onnx"), tiny_table, settings=settings)
    row = next(r for r in result.rows if r.backend == "onnxruntime")
    assert "torch" not in {r.backend for r in result.rows}
    assert (row.backend, row.status, row.speedup) == ("onnxruntime", "ok", None)
    assert result.accuracy[0].miou_delta is None


def test_backend_that_cannot_run_is_a_row_with_its_reason(tiny_bundle, tiny_table, monkeypatch):
    def opened(*_):
        raise MissingPartError("never opened")

    absent = BackendPlugin(
        name="absent",
        summary="",
        artifact="onnx",
        available=lambda: Availability(ok=False, reason="its engine is not installed"),
        open=opened,
    )
    monkeypatch.setitem(registry.catalogue("backend").plugins, "absent", absent)
    settings = Benchmark(batches=(1,), threads=1, rounds=1, warmup=0)
    result = run_benchmark(
        open_model(tiny_bundle), tiny_table, settings=settings, backends=["onnxruntime", "absent"], compile=False
    )
    states = {r.name: (r.status, r.reason) for r in result.rows}
    assert states == {"onnxruntime": ("ok", None), "absent": ("failed", "its engine is not installed")}
    assert "failed: its engine is not installed" in benchmark_table(result)


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


def test_memory_is_the_workers_own(tiny_bundle, tmp_path):
    """A parent that once held 600 MiB must not show in its child's peak."""
    held = np.ones(600 << 17)
    del held
    np.save(tmp_path / "images.npy", np.zeros((2, 64, 96, 3), np.uint8))
    with WorkerProcess(1) as worker:
        images = str(tmp_path / "images.npy")
        worker.ask("open", model=str(tiny_bundle), backend="onnxruntime", options={"threads": 1}, images=images)
        assert 20 < worker.ask("memory")["peak_memory_mib"] < 400


def test_unknown_backend_and_nothing_to_run(tiny_bundle, tiny_run, tiny_table):
    with pytest.raises(MissingPartError, match="did you mean 'torch'"):
        run_benchmark(open_model(tiny_bundle), tiny_table, backends=["torhc"])
    settings = Benchmark(batches=(1,), threads=1, rounds=1, warmup=0)
    result = run_benchmark(open_model(tiny_run), tiny_table, settings=settings, backends=["onnxruntime"])
    assert [(r.status, "run segdeploy export first" in r.reason) for r in result.rows] == [("failed", True)]


def test_dead_worker_is_told_from_an_answer(tiny_bundle, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 64, 96, 3), np.uint8))
    with WorkerProcess(1) as worker:
        worker.ask(
            "open",
            model=str(tiny_bundle),
            backend="onnxruntime",
            options={"threads": 1},
            images=str(tmp_path / "images.npy"),
        )
        assert len(worker.ask("call", batch=2, calls=3)["milliseconds"]) >= 3
        with pytest.raises(RowError, match="AttributeError"):
            worker.ask("nothing")
        assert worker.ask("memory")["peak_memory_mib"] > 10
        worker._process.kill()
        with pytest.raises(RowError, match="killed by signal 9"):
            worker.ask("memory")


def test_silent_worker_times_out(tmp_path):
    with WorkerProcess(1, timeout=0.01) as worker, pytest.raises(RowError, match="no answer to 'memory'"):
        worker.ask("memory")


def test_settings_come_from_bundle_and_command_line(tiny_bundle):
    bundle = open_model(tiny_bundle)
    assert benchmark_settings(bundle, {"batches": None, "rounds": 7}) == Benchmark(rounds=7)
    assert benchmark_settings(bundle, {"batches": "2,8"}).batches == (2, 8)
    for word in ("1,x", "0", ""):
        with pytest.raises(ConfigError, match="whole numbers from 1"):
            benchmark_settings(bundle, {"batches": word})


def test_a_row_for_each_precision_that_a_backend_runs_and_the_bundle_holds(tiny_bundle):
    from segdeploy.benchmark.run import _entries
    from segdeploy.bundle import Bundle

    opened = open_model(tiny_bundle)
    graph = opened.find("onnx")
    others = [("fp16", ""), ("int8", "cpu"), ("int8", "tensorrt")]
    graphs = [graph.model_copy(update={"precision": p, "target": t}) for p, t in others]
    lighter = Bundle(opened.path, opened.spec, (*opened.artifacts, *graphs), opened.file)
    notes = []
    found = [(e.name, e.precision) for e in _entries(lighter, ["onnxruntime", "torch"], False, notes, fp16=False)]
    assert found[2:] == [("onnxruntime", "fp32"), ("onnxruntime int8", "int8")]
    assert [p for _, p in found[:2]] == ["fp32", "fp32"]
    assert "onnxruntime fp16 was left out: a CPU computes it in FP32, only slower" in notes
    found = [e.name for e in _entries(lighter, ["onnxruntime"], False, [], fp16=True)]
    assert found == ["onnxruntime", "onnxruntime fp16", "onnxruntime int8"]
