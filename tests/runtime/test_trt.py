"""The loader of both flavours: the real TensorRT for RTX, the doubles of TensorRT, and what breaks while it loads."""

import logging
import sys

import pytest
from engines import real

from segdeploy.errors import MissingPartError, ModelError
from segdeploy.runtime import trt
from segdeploy.runtime.gpu import Gpu, current_gpu

without_gpu = pytest.mark.skipif(current_gpu() is not None, reason="there is a GPU here")


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that puts a module of that name and code first on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield put
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


@real
def test_one_logger_for_a_process():
    first = trt.load(trt.RTX)
    assert trt.load(trt.RTX) is first
    assert first.builder().logger is first.logger
    assert first.title == f"TensorRT for RTX {first.version}"


@real
def test_listeners_hear_what_is_said_while_they_listen(caplog):
    """One inside the other: each has what was said in its own time, and routing to logging goes on."""
    flavour = trt.load(trt.RTX)
    config = flavour.builder().create_builder_config()

    def complain():
        config.builder_optimization_level = -1

    caplog.set_level(logging.INFO, "tensorrt")
    with flavour.listening() as outer:
        with flavour.listening() as inner:
            complain()
        complain()
    complain()
    assert len(outer.errors) == 2 * len(inner.errors) > 0
    assert "Setting builder optimization level" in inner.reason
    assert all(line.split()[0].endswith("ERROR") for line in inner.text().splitlines())
    assert sum("Setting builder optimization level" in r.message for r in caplog.records) == 3
    with flavour.listening() as one, flavour.listening() as other:  # equal, and yet two
        pass
    assert one is not other
    assert flavour.logger.listeners == []


@real
@without_gpu
def test_an_engine_without_a_driver_is_one_clear_line():
    flavour = trt.load(trt.RTX)
    with pytest.raises(ModelError, match=r"my\.engine: TensorRT for RTX .* rejects this engine: .*Serialization") as e:
        flavour.deserialize(b"not a plan " * 100, "my.engine")
    one_line(e)
    builder = flavour.builder()
    network = builder.create_network(0)
    tensor = network.add_input("image", flavour.module.float32, (1, 4))
    network.mark_output(network.add_identity(tensor).get_output(0))
    plan = bytes(builder.build_serialized_network(network, builder.create_builder_config()))
    with pytest.raises(
        MissingPartError, match=r"finds no NVIDIA driver or no GPU .*driver version is insufficient"
    ) as e:
        flavour.deserialize(plan, "my.engine")
    one_line(e)


def test_not_installed(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPartError, match=r"^TensorRT is not installed; pip install 'segdeploy\[trt\]'$"):
        trt.load(trt.TENSORRT)
    with pytest.raises(MissingPartError, match=r"^TensorRT for RTX is not installed; pip install --no-deps"):
        trt.load(trt.RTX)
    with pytest.raises(MissingPartError, match=r"no TensorRT is here; finish on the target: .*segdeploy build") as e:
        trt.pick_flavour()
    one_line(e)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "raise OSError('libnvinfer.so.11: cannot open shared object file\\nand more')",
            "cannot start: libnvinfer.so.11",
        ),
        ("import tensorrt_libs_that_are_not_there", "cannot start: No module named 'tensorrt_libs_that"),
        ("__version__ = '8.6.1'", "TensorRT 8.6.1 is installed, expected 10.13 to 11; pip install -U"),
        ("__version__ = '9.3.0.post1'", "TensorRT 9.3.0.post1 is installed, expected 10.13 to 11"),
    ],
)
def test_installed_and_of_no_use(module, code, words):
    module("tensorrt", code)
    with pytest.raises(MissingPartError, match=words) as e:
        trt.load(trt.TENSORRT)
    one_line(e)


@pytest.mark.parametrize("version", ["10.12.0.36", "10.3.0", "12.0.0.1"])
def test_versions_without_the_calls_that_are_made(tensorrt, monkeypatch, version):
    monkeypatch.setattr(tensorrt.module, "__version__", version)
    with pytest.raises(MissingPartError, match=f"TensorRT {version} is installed, expected 10.13 to 11; pip") as e:
        trt.load(trt.TENSORRT)
    one_line(e)
    monkeypatch.setattr(tensorrt.module, "__version__", "10.13.0.35")
    assert trt.load(trt.TENSORRT).version == "10.13.0.35"


def test_no_driver(tensorrt):
    tensorrt.faults.no_driver = True
    flavour = trt.load(trt.TENSORRT)
    for make in (flavour.builder, flavour.runtime):
        with pytest.raises(
            MissingPartError, match=r"is installed, but finds no NVIDIA .*error: 35.*--trt-flavour rtx"
        ) as e:
            make()
        one_line(e)


@real
def test_standard_where_a_gpu_is_else_rtx(tensorrt):
    assert trt.pick_flavour().name == "tensorrt"
    assert trt.pick_flavour("rtx").name == "tensorrt_rtx"
    tensorrt.device.driver = 0
    assert trt.pick_flavour().name == "tensorrt_rtx"
    assert trt.pick_flavour("tensorrt").name == "tensorrt"


def test_standard_without_gpu_and_no_rtx(tensorrt, monkeypatch):
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    tensorrt.device.driver = 0
    with pytest.raises(MissingPartError, match=f"^TensorRT {tensorrt.full_version} is here, but no GPU; finish on"):
        trt.pick_flavour()


def test_gpu_by_cuda_python(cuda_device):
    found = current_gpu()
    assert (found.name, found.compute_capability, found.cuda) == ("Double RTX", "8.6", "13.2")
    cuda_device.driver = 0
    assert current_gpu() is None


def test_gpu_by_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert current_gpu() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A10, 8.6, 580.65.06'\necho 'NVIDIA L4, 8.9, 580.65.06'\n")
    tool.chmod(0o755)
    assert current_gpu() == Gpu("NVIDIA A10", "8.6", "580.65.06")
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert current_gpu() is None
