"""The double against what it stands for: TensorRT for RTX's real module where names are shared, else the listing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import probes
import pytest
from cuda_double import Device
from cuda_values import cudaMemcpyKind
from onnx import TensorProto, helper
from probes import BUILDER, CONFIG, outcome
from tensorrt_double import VERSIONS, TensorRT

H2D, D2H = cudaMemcpyKind.cudaMemcpyHostToDevice, cudaMemcpyKind.cudaMemcpyDeviceToHost


def test_python_meets_it_as_it_meets_the_real_one(tmp_path):
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT for RTX is not installed")
    words = [sys.executable, probes.__file__, "tensorrt_rtx_bindings", str(tmp_path / "real.json")]
    subprocess.run(words, check=True, capture_output=True)
    real = json.loads((tmp_path / "real.json").read_text())
    assert len(real) == len(probes.SHARED) > 80
    for version in VERSIONS:
        double = TensorRT(version).module
        found = {code: outcome(code, double) for code in probes.SHARED}
        assert {c: (found[c], real[c]) for c in real if found[c] != real[c]} == {}, version


@pytest.mark.parametrize(
    ("code", "on_10", "on_11"),
    [
        ("t.BuilderFlag.FP16", "BuilderFlag", "AttributeError"),
        (BUILDER + "b.platform_has_fast_fp16", "bool True", "AttributeError"),
        ("t.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "NetworkDefinitionCreationFlag", "AttributeError"),
        ("int(t.NetworkDefinitionCreationFlag.STRONGLY_TYPED)", "int 1", "int 0"),
        (CONFIG + "c.set_quantization_flag", "method", "AttributeError"),
        ("t.no_such_name", "AttributeError", "AttributeError"),
    ],
)
def test_what_11_removed_is_caught(code, on_10, on_11):
    for version, expected in zip(VERSIONS, (on_10, on_11), strict=True):
        assert outcome(code, TensorRT(version).module).startswith(expected), version


# How engines were built before strong typing; people still copy it from old guides.
OLD_SCRIPT = """
builder = trt.Builder(trt.Logger())
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
trt.OnnxParser(network, trt.Logger()).parse_from_file(path)
config = builder.create_builder_config()
if builder.platform_has_fast_fp16:
    config.set_flag(trt.BuilderFlag.FP16)
plan = builder.build_serialized_network(network, config)
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    """image uint8 (n, 4, 6, 3) -> mask uint8 (n, 4, 6): the brightest channel."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["x"], ["i"], axis=3, keepdims=0),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["f"], ["mask"], to=TensorProto.UINT8),
    ]
    values = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 4, 6, 3]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", 4, 6]),
    ]
    opsets = [helper.make_opsetid("", 20)]
    made = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]), opset_imports=opsets, ir_version=10)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(made, path)
    return path


def build(library: TensorRT, path: Path, profile=((1, 4, 6, 3), (1, 4, 6, 3), (4, 4, 6, 3)), flags=()):
    trt = library.module
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse_from_file(str(path))
    config = builder.create_builder_config()
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if profile:
        made = builder.create_optimization_profile()
        made.set_shape("image", *profile)
        assert config.add_optimization_profile(made) == 0
    return builder.build_serialized_network(network, config)


def load(library: TensorRT, plan, host_code=False):
    trt = library.module
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    runtime.engine_host_code_allowed = host_code
    return runtime.deserialize_cuda_engine(plan)


def test_a_script_of_old_fails_on_11(graph):
    scope = {"path": str(graph)}
    exec(OLD_SCRIPT.replace("plan =", "pass #"), scope | {"trt": TensorRT("10.16").module})
    with pytest.raises(AttributeError, match="EXPLICIT_BATCH"):
        exec(OLD_SCRIPT, scope | {"trt": TensorRT("11.4").module})
    half_way = OLD_SCRIPT.replace("1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)", "0")
    with pytest.raises(AttributeError, match="platform_has_fast_fp16"):
        exec(half_way, scope | {"trt": TensorRT("11.4").module})
    with pytest.raises(AttributeError, match="FP16"):
        exec(half_way.replace("builder.platform_has_fast_fp16", "True"), scope | {"trt": TensorRT("11.4").module})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_runs_on_the_device(version, graph):
    device = Device()
    library, cuda = TensorRT(version, device), device.module()
    plan = build(library, graph)
    assert plan.nbytes == len(bytes(plan))
    engine = load(library, plan)
    context = engine.create_execution_context()
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    stream = cuda.cudaStreamCreateWithFlags(1)[1]
    into, out = cuda.cudaMalloc(image.nbytes)[1], cuda.cudaMalloc(3 * 24)[1]
    host = cuda.cudaMallocHost(image.nbytes)[1]
    view = device.pinned_at(host, image.nbytes)
    view[:] = image.ravel()
    assert context.infer_shapes() == ["image"]
    assert tuple(context.get_tensor_shape("mask")) == (-1, 4, 6)
    assert not context.set_input_shape("image", (5, 4, 6, 3))
    assert context.set_input_shape("image", image.shape)
    assert tuple(context.get_tensor_shape("mask")) == (3, 4, 6)
    assert not context.execute_async_v3(int(stream))  # no addresses yet
    assert context.set_tensor_address("image", into)
    assert context.set_tensor_address("mask", out)
    assert not context.set_tensor_address("none", out)
    assert cuda.cudaMemcpyAsync(into, host, image.nbytes, H2D, stream) == (0,)
    assert context.execute_async_v3(int(stream))
    assert cuda.cudaMemcpyAsync(host, out, 72, D2H, stream) == (0,)
    assert (view[:72] != image.argmax(-1).ravel()).any()  # nothing has happened yet
    assert cuda.cudaStreamSynchronize(stream) == (0,)
    assert (view[:72].reshape(3, 4, 6) == image.argmax(-1)).all()
    cuda.cudaFree(into), cuda.cudaFree(out), cuda.cudaFreeHost(host), cuda.cudaStreamDestroy(stream)
    assert set(device.alive()) == {"engine"}
    del context, engine
    assert device.alive() == {}
    assert device.problems == []


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_of_others_are_refused(version, graph):
    other = next(v for v in VERSIONS if v != version)
    plan = bytes(build(TensorRT(version), graph))
    assert load(TensorRT(version), plan) is not None
    assert load(TensorRT(other), plan) is None
    assert load(TensorRT(version, Device(capability=(9, 0))), plan) is None
    assert load(TensorRT(version), b"x" + plan) is None
    compatible = bytes(build(TensorRT("10.16"), graph, flags=["VERSION_COMPATIBLE"]))
    assert load(TensorRT("11.4"), compatible) is None  # host code is not allowed
    assert load(TensorRT("11.4"), compatible, host_code=True) is not None
    newer = bytes(build(TensorRT("11.4"), graph, flags=["VERSION_COMPATIBLE"]))
    assert load(TensorRT("10.16"), newer, host_code=True) is None  # never newer on older


@pytest.mark.parametrize("version", VERSIONS)
def test_builds_that_give_none(version, graph):
    assert build(TensorRT(version), graph, profile=None) is None  # a free size without a profile
    assert build(TensorRT(version), graph, profile=((1, 8, 6, 3),) * 3) is None
    if version == "10.16":
        assert build(TensorRT(version), graph, flags=["FP16"]) is None  # strongly typed
    library = TensorRT(version)
    library.faults.build = "planted"
    assert build(library, graph) is None


def test_progress_monitor_cancels(graph):
    library = TensorRT("11.4")
    trt = library.module

    class Monitor(trt.IProgressMonitor):
        def __init__(self, answer):
            trt.IProgressMonitor.__init__(self)
            self.answer, self.seen = answer, []

        def phase_start(self, name, parent, steps):
            self.seen.append((name, steps))

        def phase_finish(self, name):
            self.seen.append(name)

        def step_complete(self, name, step):
            return self.answer(step)

    def built(answer):
        builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
        network = builder.create_network(0)
        trt.OnnxParser(network, trt.Logger()).parse_from_file(str(graph))
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *[(1, 4, 6, 3)] * 3)
        config.add_optimization_profile(profile)
        config.progress_monitor = Monitor(answer)
        return builder.build_serialized_network(network, config)

    assert built(lambda step: True) is not None
    assert built(lambda step: step < 1) is None
    assert built(lambda step: 1 / 0) is None  # a callback's exception is swallowed and cancels


def test_timing_caches_belong_to_a_device():
    def config(device):
        trt = TensorRT("11.4", device).module
        return trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_builder_config()

    mine = config(Device())
    blob = bytes(mine.create_timing_cache(b"").serialize())
    assert mine.set_timing_cache(mine.create_timing_cache(blob), ignore_mismatch=False)
    other = config(Device(name="another"))
    assert not other.set_timing_cache(other.create_timing_cache(blob), ignore_mismatch=False)
    assert other.create_timing_cache(b"junk") is None


def test_one_logger_per_process(graph):
    trt = TensorRT("11.4").module
    heard = []

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, message):
            heard.append((severity.name, message))

    first = Logger()
    assert trt.Builder(first).logger is first
    assert trt.Runtime(Logger()).logger is first
    assert heard == [("WARNING", "The logger passed in differs from one already registered; it is ignored.")]


def test_no_driver_is_a_type_error():
    trt = TensorRT("11.4", Device(driver=0)).module
    for start in (trt.Builder, trt.Runtime):
        with pytest.raises(TypeError, match="factory function returned nullptr"):
            start(trt.Logger(trt.Logger.INTERNAL_ERROR))


def test_context_managers_warn():
    trt = TensorRT("11.4").module
    with pytest.warns(DeprecationWarning, match="Context managers"), trt.Builder(trt.Logger()):
        pass


def test_fixture_stands_for_the_library(tensorrt):
    import tensorrt as imported

    assert imported is tensorrt.module is sys.modules["tensorrt"]
