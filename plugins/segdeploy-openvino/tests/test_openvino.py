import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from segdeploy.benchmark.run import run_benchmark
from segdeploy.bundle import Bundle, artifact
from segdeploy.config.schema import Benchmark
from segdeploy.data.table import read_table
from segdeploy.environment import available_cores
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.evaluate import evaluate
from segdeploy.plugin import registry
from segdeploy.runtime.runner import RunnerOptions, open_runner

import segdeploy_openvino
from segdeploy_openvino import float_types, import_openvino, properties

ONE = RunnerOptions(threads=1)


@pytest.fixture
def runner(bundle):
    with open_runner(bundle, "openvino", ONE) as opened:
        yield opened


def test_registered_with_its_owner():
    known = registry.catalogue("backend")
    assert known.owners["openvino"].distribution == "segdeploy-openvino"
    ready = known.plugins["openvino"].available()
    assert ready.ok
    assert import_openvino().__version__.startswith(ready.version)
    assert int(ready.version.split(".")[0]) >= 2025


@pytest.mark.parametrize("reference", ["torch", "onnxruntime"])
@pytest.mark.parametrize("batch", [1, 3])
def test_labels_agree(any_bundle, images, reference, batch):
    with open_runner(any_bundle, reference, ONE) as other:
        expected = other.run(images[:batch])
    with open_runner(any_bundle, "openvino", ONE) as ours:
        labels = ours.run(images[:batch])
    assert len(np.unique(expected)) > 2
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert (labels == expected).mean() >= 0.999


def test_batch_sizes_may_alternate(runner, images):
    alone = np.concatenate([runner.run(images[i : i + 1]) for i in range(3)])
    for batch in (3, 1, 2, 3):
        assert (runner.run(images[:batch]) == alone[:batch]).mean() >= 0.999


def test_result_is_the_callers_own(runner, images):
    first = runner.run(images)
    kept = first.copy()
    second = runner.run(255 - images)
    assert (first == kept).all()
    assert (first != second).any()
    first[:] = 0
    assert (runner.run(images) == kept).all()


def test_input_is_left_alone_in_any_layout(runner, images):
    before = images.copy()
    expected = runner.run(images)
    assert (images == before).all()
    wide = np.zeros((6, 64, 192, 3), np.uint8)
    wide[::2, :, ::2] = images
    assert (runner.run(wide[::2, :, ::2]) == expected).all()
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    assert (runner.run(channels_first.transpose(0, 2, 3, 1)) == expected).all()
    images.flags.writeable = False
    assert (runner.run(images) == expected).all()


def test_describe_is_json_and_what_openvino_says(bundle):
    for threads in sorted({1, available_cores()}):
        with open_runner(bundle, "openvino", RunnerOptions(threads=threads)) as opened:
            said = opened.describe()
        assert json.loads(json.dumps(said)) == said
        assert said == {
            "backend": "openvino",
            "variant": "",
            "provider": "CPU",
            "precision": "fp32",
            "computed_in": ["f32"],
            "threads": threads,
            "streams": 1,
            "pinned": False,
            "versions": {"openvino": segdeploy_openvino.available().version},
        }


def test_one_thread_is_one_thread(runner, images):
    """The process never uses more than one CPU at a time."""
    runner.run(images)
    worked, passed = time.process_time(), time.perf_counter()
    for _ in range(60):
        runner.run(images)
    assert time.process_time() - worked < 1.1 * (time.perf_counter() - passed)


def test_without_the_hint_it_would_be_another_type(bundle):
    core = import_openvino().Core()
    able = {"BF16", "FP16"} & set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    if not able:
        pytest.skip("this CPU has neither BF16 nor FP16 arithmetic, so OpenVINO's default is f32 too")
    asked = properties(1)
    path = str(bundle.path / "model.onnx")
    with_hint = core.compile_model(path, "CPU", asked)
    del asked["INFERENCE_PRECISION_HINT"]
    without = core.compile_model(path, "CPU", asked)
    assert with_hint.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert without.get_property("INFERENCE_PRECISION_HINT").get_type_name() in ("bf16", "f16")
    assert float_types(with_hint) == ["f32"]
    assert {"bf16", "f16"} & set(float_types(without))


def test_another_type_than_asked_for_is_refused(bundle, monkeypatch):
    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no BF16 arithmetic to ask for")
    asked = {**properties(1), "INFERENCE_PRECISION_HINT": "bf16"}
    monkeypatch.setattr(segdeploy_openvino, "properties", lambda threads: asked)
    with pytest.raises(ModelError, match=r"to compute in f32 on CPU, found bf16, f32 on CPU$"):
        open_runner(bundle, "openvino", ONE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RunnerOptions(device="cuda"), "device 'cuda': backend openvino knows cpu"),
        (RunnerOptions(variant="bf16"), "backend openvino has no variant 'bf16'"),
        (RunnerOptions(precision="fp16"), "precision fp16: backend openvino runs fp32"),
        (RunnerOptions(threads=4096), f"4096 threads were asked for, OpenVINO runs {available_cores()} here"),
    ],
)
def test_refusals(bundle, options, said):
    with pytest.raises(MissingPartError, match=said) as caught:
        open_runner(bundle, "openvino", options)
    assert "\n" not in str(caught.value)


def test_model_without_onnx_is_refused(bundle):
    weights_alone = Bundle(bundle.path, bundle.spec, bundle.artifacts[:1])
    with pytest.raises(ModelError, match="holds no ONNX file of precision fp32; run segdeploy export"):
        open_runner(weights_alone, "openvino")


@pytest.mark.parametrize("content", ["another interface", "no graph"])
def test_foreign_files_are_refused_in_one_line(bundle, tmp_path, content):
    import onnx
    from onnx import TensorProto, helper

    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    said = "OpenVINO cannot load it: "
    if content == "another interface":
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
        onnx.save(helper.make_model(graph, ir_version=10), path)
        said = r"expected image u8\[N,H,W,3\] -> mask u8\[N,H,W\], found \[\('x', 'f32', 4\), \('y', 'f32', 4\)\]"
    foreign = Bundle(tmp_path, bundle.spec, (artifact(tmp_path, path.name, "onnx", "fp32"),))
    with pytest.raises(ModelError, match=said) as caught:
        open_runner(foreign, "openvino", ONE)
    assert "\n" not in str(caught.value)
    assert "src/" not in str(caught.value)


def test_image_of_another_type_or_size_is_refused(runner, images):
    # One thread is where OpenVINO's own synchronous call gives the last result once more.
    expected = runner.run(images)
    for bad in (images.astype(np.int16), images.astype(np.float32), images[:, :32], images[..., :1], images[0]):
        with pytest.raises(ModelError, match="cannot run it: ") as caught:
            runner.run(bad)
        assert "\n" not in str(caught.value)
    assert (runner.run(images) == expected).all()


def test_close_frees_and_opening_again_works(bundle, images):
    import weakref

    opened = open_runner(bundle, "openvino", ONE)
    expected = opened.run(images)
    held = [weakref.ref(v) for v in vars(opened).values() if type(v).__module__.startswith("openvino")]
    assert len(held) == 2
    opened.close()
    assert [ref() for ref in held] == [None, None]
    with open_runner(bundle, "openvino", ONE) as again:
        assert (again.run(images) == expected).all()


def test_evaluate_gives_the_scores_of_onnxruntime(bundle, table):
    samples = read_table(table, bundle.spec.image_column, bundle.spec.mask_column)
    results = {}
    for backend in ("onnxruntime", "openvino"):
        with open_runner(bundle, backend, ONE) as opened:
            results[backend] = evaluate(opened, samples, bundle.spec, batch_size=4)
    ours, theirs = (results[b].scores.confusion for b in ("openvino", "onnxruntime"))
    assert ours.sum() == theirs.sum() > 0
    assert np.abs(ours - theirs).sum() / 2 <= 0.001 * ours.sum()
    assert results["openvino"].runner["backend"] == "openvino"


def test_benchmark_row(bundle, table):
    settings = Benchmark(batches=(1, 2), threads=(1,), rounds=2, seconds=0, warmup=1, warmup_seconds=0, cold_starts=0)
    result = run_benchmark(bundle, table, settings=settings, backends=["onnxruntime", "openvino"], pictures=0)
    rows = [r for r in result.rows if r.backend == "openvino"]
    assert [(r.status, r.reason, r.batch, r.provider, r.precision, r.artifact) for r in rows] == [
        ("ok", None, batch, "CPU", "fp32", "model.onnx") for batch in (1, 2)
    ]
    theirs, ours = result.accuracy
    assert (theirs.backend, ours.backend) == ("onnxruntime", "openvino")
    assert ours.images == 6
    assert ours.mean_iou == pytest.approx(theirs.mean_iou, abs=0.001)


def test_benchmark_row_says_why_it_failed(bundle, table):
    settings = Benchmark(batches=(1,), threads=(1,), rounds=1, seconds=0, warmup=0)
    result = run_benchmark(bundle, table, settings=settings, backends=["openvino"], device="cuda", pictures=0)
    assert [(r.status, r.reason) for r in result.rows] == [("failed", "device 'cuda': backend openvino knows cpu")]


def run_python(code, home, *words):
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**kept, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_engine_is_imported_only_when_it_is_opened(tmp_path):
    run_python(
        "import sys, segdeploy_openvino\n"
        "heavy = {'openvino', 'numpy', 'torch', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)",
        tmp_path,
    )


def test_nothing_is_reported_to_anyone(bundle, tmp_path):
    """openvino sends usage statistics when it is imported, and keeps an identity in ~/intel; not through us."""
    run_python(
        "import sys\n"
        "from pathlib import Path\n"
        "from segdeploy.bundle import open_model\n"
        "from segdeploy.runtime.runner import open_runner\n"
        "open_runner(open_model(Path(sys.argv[1])), 'openvino').close()\n"
        "assert 'openvino' in sys.modules\n"
        "seen = {'openvino_telemetry', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(seen)}' if seen else 0)",
        tmp_path,
        str(bundle.path),
    )
    assert list(tmp_path.iterdir()) == []
