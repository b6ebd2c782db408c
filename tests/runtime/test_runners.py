import subprocess
import sys
import time

import numpy as np
import pytest

from segdeploy.bundle import open_model
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import registry
from segdeploy.runtime.runner import RunnerOptions, open_runner

BACKENDS = sorted(registry.catalogue("backend").plugins)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_contract(backend, tiny_bundle, images):
    """Every registered backend: uint8 in, class ids out, any batch, inputs left alone, says what it is."""
    bundle = open_model(tiny_bundle)
    plugin = registry.backend(backend)
    if not (ready := plugin.available()).ok:
        pytest.skip(ready.reason)
    if bundle.find(plugin.artifact) is None:
        pytest.skip(f"the bundle has no {plugin.artifact}")
    before = images.copy()
    with open_runner(bundle, backend, RunnerOptions(threads=1, device="cpu")) as runner:
        together = runner.run(images)
        alone = np.concatenate([runner.run(images[i : i + 1]) for i in range(3)])
        described = runner.describe()
    assert together.dtype == np.uint8
    assert together.shape == (3, 64, 96)
    assert together.max() < len(bundle.spec.classes)
    assert (together == alone).mean() > 0.999
    assert (images == before).all()
    assert described["backend"] == backend
    assert described["threads"] == 1
    assert described["precision"] == "fp32"
    assert described["versions"]


@pytest.mark.parametrize("variant", ["channels_last"])
def test_torch_variants_give_the_same_labels(variant, tiny_bundle, images):
    bundle = open_model(tiny_bundle)
    found = []
    for v in ("", variant):
        with open_runner(bundle, "torch", RunnerOptions(threads=1, variant=v)) as runner:
            found.append(runner.run(images))
            assert runner.describe()["variant"] == (v or "eager")
    assert (found[0] == found[1]).mean() > 0.999


def test_torch_amp_computes_in_bfloat16_on_a_cpu(tiny_bundle, images):
    found = []
    for variant, precision in (("", "fp32"), ("amp", "bf16")):
        with open_runner(
            open_model(tiny_bundle), "torch", RunnerOptions(threads=1, device="cpu", variant=variant)
        ) as runner:
            found.append(runner.run(images))
            assert runner.describe()["precision"] == precision
    assert (found[0] == found[1]).mean() > 0.9


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_engine_time_is_that_of_the_last_run(backend, tiny_bundle, images):
    with open_runner(open_model(tiny_bundle), backend, RunnerOptions(threads=1, device="cpu")) as runner:
        assert runner.engine_seconds is None
        for _ in range(3):
            began = time.perf_counter()
            runner.run(images)
            assert 0 < runner.engine_seconds < time.perf_counter() - began


def test_default_backend_is_what_the_model_holds(tiny_bundle, tiny_run):
    with open_runner(open_model(tiny_bundle)) as runner:
        assert runner.describe()["backend"] == "onnxruntime"
    with open_runner(open_model(tiny_run)) as runner:
        assert runner.describe()["backend"] == "torch"


def test_refusals_are_clear(tiny_bundle, tiny_run):
    bundle, run = open_model(tiny_bundle), open_model(tiny_run)
    with pytest.raises(MissingPartError, match="did you mean 'onnxruntime'"):
        open_runner(bundle, "onnxruntim")
    with pytest.raises(ModelError, match="holds no ONNX file"):
        open_runner(run, "onnxruntime")
    with pytest.raises(ModelError, match="it holds"):
        open_runner(bundle, None, RunnerOptions(precision="int4"))
    with pytest.raises(MissingPartError, match="no variant"):
        open_runner(bundle, "onnxruntime", RunnerOptions(variant="compile"))
    with pytest.raises(MissingPartError, match="no variant"):
        open_runner(bundle, "torch", RunnerOptions(variant="fast"))
    with pytest.raises(MissingPartError, match="knows cpu and cuda"):
        open_runner(bundle, "onnxruntime", RunnerOptions(device="tpu"))


def test_absent_provider_is_never_replaced(tiny_bundle):
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(MissingPartError, match="no CUDAExecutionProvider"):
        open_runner(open_model(tiny_bundle), "onnxruntime", RunnerOptions(device="cuda"))


def test_foreign_onnx_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), ir_version=10)
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(ModelError, match=r"its metadata has no segdeploy\.spec"):
        open_model(tmp_path / "relu.onnx")


def test_predict_on_a_bundle_imports_no_training_code(tiny_bundle, tiny_table, tmp_path):
    code = (
        "import sys\n"
        "from segdeploy.cli.main import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'torchvision', 'timm', 'onnx', 'safetensors', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    words = ["predict", str(tiny_bundle), str(tiny_table.parent / "images"), "-o", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.png"))) == 20


def kept(tiny_bundle, **changes):
    """The tiny bundle's content with a made-up engine, and with `changes` to what is said of it."""
    from segdeploy.bundle import Artifact, Bundle

    opened = open_model(tiny_bundle)
    about = {"status": "verified", "verification": [], **changes}
    engine = Artifact(kind="engine", precision="fp16", file="model.engine", sha256="", bytes=0, about=about)
    return Bundle(opened.path, opened.spec, (*opened.artifacts, engine), opened.file)


def test_an_engine_is_preferred_where_it_can_run(tiny_bundle, monkeypatch):
    from dataclasses import replace

    from segdeploy.plugin import Availability, registry
    from segdeploy.runtime.runner import choose_backend

    plugins = registry.catalogue("backend").plugins
    here = replace(plugins["tensorrt"], available=lambda: Availability(ok=True))
    monkeypatch.setitem(plugins, "tensorrt", here)
    assert choose_backend(kept(tiny_bundle), RunnerOptions(precision="auto")) == "tensorrt"
    assert choose_backend(kept(tiny_bundle), RunnerOptions(precision="fp32")) == "onnxruntime"
    assert choose_backend(kept(tiny_bundle), RunnerOptions(precision="auto", device="cpu")) == "onnxruntime"
    failed = [{"passed": False, "reasons": ["mean IoU drops"]}]
    assert choose_backend(kept(tiny_bundle, verification=failed), RunnerOptions(precision="auto")) == "onnxruntime"
