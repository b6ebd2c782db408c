"""ONNX Runtime's providers: chosen, set up, and held to their work."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.bundle import Bundle, artifact, open_model
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.runtime import ort_providers
from segdeploy.runtime.ort_providers import CPU, CUDA, TENSORRT, Provider, candidates, check_assignment, provider
from segdeploy.runtime.ort_runner import OrtRunner, open_onnxruntime
from segdeploy.runtime.runner import RunnerOptions, open_runner


def graph(path, operator="ArgMax"):
    """image -> index of the brightest (or, ArgMin, the darkest) channel."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["x"], ["i"], axis=3, keepdims=0),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["f"], ["mask"], to=TensorProto.UINT8),
    ]
    values = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", "h", "w"]),
    ]
    made = helper.make_graph(nodes, "g", values[:1], values[1:])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("device", "variant", "present", "expected"),
    [
        ("auto", "", [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        ("auto", "", [CPU], [CPU]),
        ("cpu", "", [CUDA, CPU], [CPU]),
        ("cuda", "", [CUDA, CPU], [CUDA]),
        ("auto", "tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT]),  # asked for by name: never replaced
        ("cuda", "tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT]),
        ("cuda", "", [CPU], "device cuda: this onnxruntime has no CUDAExecutionProvider; pip install 'segdeploy"),
        ("cuda", "tensorrt", [CUDA, CPU], "variant tensorrt: this onnxruntime has no TensorrtExecutionProvider"),
        ("cpu", "tensorrt", [TENSORRT, CPU], "variant tensorrt runs on a GPU"),
        ("tpu", "", [CPU], "knows cpu and cuda"),
        ("cpu", "fast", [CPU], "no variant 'fast'; it has 'tensorrt'"),
    ],
)
def test_which_providers_an_option_means(device, variant, present, expected):
    if isinstance(expected, list):
        assert candidates(device, variant, present) == expected
        return
    with pytest.raises(MissingPartError) as e:
        candidates(device, variant, present)
    assert expected in str(e.value)
    assert "\n" not in str(e.value)


def test_a_missing_provider_is_an_error_line(tiny_bundle):
    import onnxruntime as ort

    if TENSORRT in ort.get_available_providers():
        pytest.skip("this onnxruntime has TensorRT")
    with pytest.raises(MissingPartError, match="no TensorrtExecutionProvider"):
        open_runner(open_model(tiny_bundle), "onnxruntime", RunnerOptions(variant="tensorrt"))


def test_tensorrt_gets_the_types_of_the_graph_and_a_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path))
    graph(tmp_path / "model.onnx")
    made = artifact(tmp_path, "model.onnx", "onnx", "fp16")
    given = provider(TENSORRT, made, (64, 96)).options
    assert given["trt_profile_min_shapes"] == "image:1x64x96x3"
    assert given["trt_profile_max_shapes"] == "image:8x64x96x3"
    assert given["trt_engine_cache_path"].startswith(str(tmp_path))
    assert Path(given["trt_engine_cache_path"]).is_dir()
    assert made.sha256[:16] in given["trt_engine_cache_path"]  # another graph finds no engine of this one
    assert not {"trt_fp16_enable", "trt_int8_enable", "trt_bf16_enable"} & set(given)  # these end strong typing
    assert provider(CUDA, made, (64, 96)).options == {"use_tf32": "0"}
    assert provider(CPU, made, (64, 96)).options == {}


def session(path):
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(str(path), settings, providers=[CPU])


def test_who_runs_each_node_is_read(tmp_path):
    path = graph(tmp_path / "model.onnx")
    check_assignment(session(path), CPU, path)
    with pytest.raises(MissingPartError, match="CUDAExecutionProvider leaves ArgMax, Cast to the CPU") as e:
        check_assignment(session(path), CUDA, path)
    assert "\n" not in str(e.value)
    with pytest.raises(MissingPartError, match="cannot say which provider"):
        check_assignment(object(), CUDA, path)


def test_arithmetic_of_sizes_may_stay_on_the_cpu(tmp_path):
    """Shape and what follows it; the same operators without it are work on the image."""
    nodes = [
        helper.make_node("Shape", ["image"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "three"], ["to"]),
        helper.make_node("Concat", ["to"], ["size"], axis=0),
        helper.make_node("Cast", ["size"], ["mask"], to=TensorProto.UINT8),
    ]
    values = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, [3]),
    ]
    constants = [numpy_helper.from_array(np.int64([v]), name) for name, v in (("zero", 0), ("three", 3))]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    path = tmp_path / "sizes.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    check_assignment(session(path), CUDA, path)


def test_a_provider_that_leaves_its_work_is_refused(tmp_path):
    """The provider for Azure is in every wheel and runs no such node: a real silent fall-back."""
    import onnxruntime as ort

    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no second provider")
    path = graph(tmp_path / "model.onnx")
    with pytest.raises(MissingPartError, match="AzureExecutionProvider leaves ArgMax, Cast to the CPU"):
        OrtRunner(path, Provider("AzureExecutionProvider"), RunnerOptions(threads=1))


def test_a_fall_back_is_told_with_its_reason(tiny_bundle, monkeypatch):
    import onnxruntime as ort

    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no second provider")
    bundle, options = open_model(tiny_bundle), RunnerOptions(threads=1)
    with open_onnxruntime(bundle, options) as runner:
        assert "fell_back" not in runner.describe()
    monkeypatch.setattr("segdeploy.runtime.ort_runner.candidates", lambda *_: ["AzureExecutionProvider", CPU])
    with open_onnxruntime(bundle, options) as runner:
        assert runner.describe()["provider"] == CPU
        assert "AzureExecutionProvider" in runner.describe()["fell_back"]


def test_an_unknown_provider_is_refused(tmp_path):
    path = graph(tmp_path / "model.onnx")
    with pytest.raises((MissingPartError, ModelError), match=r"fell back|cannot load"):
        OrtRunner(path, Provider(CUDA), RunnerOptions(threads=1))


def test_each_target_gets_its_own_int8_graph(tmp_path, tiny_bundle, image):
    spec = open_model(tiny_bundle).spec
    for name, operator in (("cpu", "ArgMax"), ("tensorrt", "ArgMin")):
        graph(tmp_path / f"model.int8-{name}.onnx", operator)
    held = [artifact(tmp_path, f"model.int8-{n}.onnx", "onnx", "int8", target=n) for n in ("tensorrt", "cpu")]
    options = RunnerOptions(threads=1, device="cpu", precision="int8")
    with open_onnxruntime(Bundle(tmp_path, spec, tuple(held)), options) as runner:
        assert (runner.run(image) == image.argmax(-1)).all()
        assert runner.describe()["precision"] == "int8"
    with pytest.raises(ModelError, match="precision int8 for CPUExecutionProvider"):
        open_onnxruntime(Bundle(tmp_path, spec, tuple(held[:1])), options)


def test_large_batches_go_to_tensorrt_in_parts(tmp_path, image, monkeypatch):
    monkeypatch.setattr(ort_providers, "TENSORRT", CPU)
    monkeypatch.setattr("segdeploy.runtime.ort_runner.TENSORRT", CPU)
    monkeypatch.setattr("segdeploy.runtime.ort_runner.TENSORRT_BATCH", 2)
    with OrtRunner(graph(tmp_path / "model.onnx"), Provider(CPU), RunnerOptions(threads=1)) as runner:
        sizes, own = [], runner.session.run
        monkeypatch.setattr(
            runner.session, "run", lambda names, given: sizes.append(len(given["image"])) or own(names, given)
        )
        assert (runner.run(image) == image.argmax(-1)).all()
    assert sizes == [2, 1]


@pytest.mark.parametrize(
    ("device", "present", "told"),
    [
        ("auto", [CUDA, CPU], ["model.onnx"]),
        ("cuda", [CUDA, CPU], ["model.onnx"]),
        ("auto", [CPU], []),
        ("cpu", [CUDA, CPU], []),
    ],
)
def test_the_graph_that_runs_is_the_one_that_is_warned_of(tmp_path, monkeypatch, caplog, device, present, told):
    """Of a bundle whose plain graph failed its verification, and whose graph for CPUs did not."""
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: present)
    monkeypatch.setattr(
        "segdeploy.runtime.ort_runner.OrtRunner", lambda path, provider, options: SimpleNamespace(file=path.name)
    )
    files = {"model.onnx": "", "model.cpu.onnx": "cpu"}
    held = [artifact(graph(tmp_path / name).parent, name, "onnx", "fp32", target=t) for name, t in files.items()]
    records = [{"precision": "fp32", "target": t, "passed": t == "cpu", "reasons": ["worse"]} for t in files.values()]
    spec = SimpleNamespace(preprocessing=SimpleNamespace(height=8, width=6))
    bundle = Bundle(tmp_path, spec, tuple(held), SimpleNamespace(verification=records))
    opened = open_runner(bundle, "onnxruntime", RunnerOptions(device=device))
    assert opened.file == (told or ["model.cpu.onnx"])[0]
    assert caplog.messages == [f"{tmp_path / name}: it failed its verification: worse" for name in told]
