"""What only a GPU can show; skipped, with the reason, where there is none or its library is missing."""

import shutil
from contextlib import ExitStack

import numpy as np
import onnx
import pytest

from segdeploy.bundle import Bundle, artifact, open_model
from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image
from segdeploy.data.table import read_table
from segdeploy.errors import MissingPartError
from segdeploy.runtime import cuda, trt
from segdeploy.runtime.gpu import current_gpu
from segdeploy.runtime.ort_providers import CUDA, TENSORRT
from segdeploy.runtime.runner import RunnerOptions, open_runner

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(current_gpu() is None, reason="no NVIDIA GPU here")]
AGREEMENT = {"fp32": 0.9999, "fp16": 0.995}
"""Of the labels, with onnxruntime in FP32 on the CPU."""


@pytest.fixture(scope="module")
def images(tiny_bundle, tiny_table):
    """Eleven pictures (11, 64, 96, 3) uint8: more than an engine's largest batch."""
    spec = open_model(tiny_bundle).spec
    samples = read_table(tiny_table, spec.image_column, spec.mask_column)[:11]
    return np.stack([resize_image(read_image(sample.image), spec.preprocessing) for sample in samples])


@pytest.fixture(scope="module")
def graphs(tiny_bundle, images, tmp_path_factory):
    """A bundle with the model's graph in FP32 and in FP16."""
    from segdeploy.export.precision import to_fp16

    spec, folder = open_model(tiny_bundle).spec, tmp_path_factory.mktemp("graphs")
    shutil.copy(tiny_bundle / "model.onnx", folder)
    half, _ = to_fp16(onnx.load(folder / "model.onnx"), [image[None] for image in images[:4]])
    onnx.save(half, folder / "model.fp16.onnx")
    names = {"fp32": "model.onnx", "fp16": "model.fp16.onnx"}
    return Bundle(folder, spec, tuple(artifact(folder, name, "onnx", p) for p, name in names.items()))


@pytest.fixture(scope="module")
def truth(tiny_bundle, images):
    """onnxruntime's labels on the CPU."""
    with open_runner(open_model(tiny_bundle), "onnxruntime", RunnerOptions(device="cpu")) as runner:
        return runner.run(images)


@pytest.mark.parametrize("precision", AGREEMENT)
@pytest.mark.parametrize(("variant", "provider"), [("", CUDA), ("tensorrt", TENSORRT)])
def test_onnxruntime_on_the_gpu(variant, provider, precision, graphs, images, truth, tmp_path, monkeypatch):
    import onnxruntime as ort

    if provider not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path))
    options = RunnerOptions(device="cuda", precision=precision, variant=variant)
    with open_runner(graphs, "onnxruntime", options) as runner:
        found = runner.run(images)
        alone = runner.run(images[:1])
        assert runner.describe()["provider"] == provider
    assert (found == truth).mean() >= AGREEMENT[precision]
    assert (alone == truth[:1]).mean() >= AGREEMENT[precision]


def test_torch_on_the_gpu(tiny_run, images, truth):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    with open_runner(open_model(tiny_run), "torch", RunnerOptions(device="cuda")) as runner:
        assert runner.describe()["provider"] == torch.cuda.get_device_name()
        assert (runner.run(images) == truth).mean() >= AGREEMENT["fp32"]


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", AGREEMENT)
@pytest.mark.parametrize("flavour", ["tensorrt", "rtx"])
def test_an_engine_built_here_runs_here(flavour, precision, graphs, images, truth, tmp_path, monkeypatch):
    """Build, run in parts, with and without CUDA graphs, and give all memory back."""
    from segdeploy.export.engine import build_engine
    from segdeploy.export.engine_options import EngineOptions

    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path / "cache"))
    try:
        trt.load(trt.FLAVOURS[flavour])
        runtime = cuda.load()
    except MissingPartError as e:
        pytest.skip(str(e))
    graph = graphs.find("onnx", precision)
    build_engine(
        graphs.path / graph.file, graphs.spec, tmp_path, precision=precision, options=EngineOptions(flavour=flavour)
    )
    bundle = Bundle(tmp_path, graphs.spec, (artifact(tmp_path, "model.engine", "engine", precision),))
    labels = {}
    for variant in ("", "eager"):
        free = runtime.call("cudaMemGetInfo")[0]
        options = RunnerOptions(device="cuda", precision=precision, variant=variant)
        with open_runner(bundle, "tensorrt", options) as runner:
            for _ in range(3):
                labels[variant] = runner.run(images)
                assert (labels[variant] == truth).mean() >= AGREEMENT[precision]
            modes = runner.describe()["cuda_graphs"]
            assert all(mode.startswith("eager" if variant else "graph") for mode in modes.values()), modes
        if variant:  # by then the library has what it keeps for the life of the process
            assert runtime.call("cudaMemGetInfo")[0] >= free - (16 << 20)
    assert (labels[""] == labels["eager"]).mean() > 0.9999


@pytest.mark.tensorrt
def test_the_runtime_copies_and_captures_on_a_real_device():
    try:
        runtime = cuda.load()
    except MissingPartError as e:
        pytest.skip(str(e))
    size = 1 << 20
    with ExitStack() as held:
        one, two, event = (held.enter_context(made()) for made in (runtime.stream, runtime.stream, runtime.event))
        there, here, back = (
            held.enter_context(made(size)) for made in (runtime.buffer, runtime.pinned, runtime.pinned)
        )
        here.array[:] = np.arange(size, dtype=np.uint32).astype(np.uint8)
        one.upload(here, there, size)
        event.record(one)
        two.wait_for(event)
        with two.capture(lambda: two.download(there, back, size)) as graph:
            graph.launch(two)
            two.synchronise()
        assert (back.array == here.array).all()
    with pytest.raises(cuda.DeviceMemoryError, match="were asked for"):
        runtime.buffer(1 << 45)
