"""The layer over the CUDA runtime, on a double of it that counts and delays."""

import importlib
import subprocess
import sys

import pytest

from segdeploy.errors import MissingPartError
from segdeploy.runtime import cuda


def test_a_round_trip(cuda_device):
    runtime = cuda.load()
    with runtime.stream() as stream, runtime.buffer(6) as there, runtime.pinned(6) as here, runtime.event() as done:
        here.array[:] = range(6)
        stream.upload(here, there, 6)
        stream.synchronise()
        here.array[:] = 0
        stream.download(there, here, 6)
        done.record(stream)
        assert here.array.tolist() == [0] * 6
        done.synchronise()
        assert here.array.tolist() == list(range(6))
        assert cuda_device.alive() == {"stream": 1, "device": 1, "pinned": 1, "event": 1}
    assert cuda_device.alive() == {}
    there.close()  # once is enough
    assert cuda_device.problems == []


def test_a_stream_waits_for_another(cuda_device):
    runtime = cuda.load()
    with (
        runtime.stream() as one,
        runtime.stream() as two,
        runtime.event() as event,
        runtime.buffer(3) as there,
        runtime.pinned(3) as here,
        runtime.pinned(3) as back,
    ):
        here.array[:] = 4
        one.upload(here, there, 3)
        event.record(one)
        two.wait_for(event)
        two.download(there, back, 3)
        two.synchronise()
        assert back.array.tolist() == [4, 4, 4]


def test_a_captured_graph_replays(cuda_device):
    runtime = cuda.load()
    with (
        runtime.stream() as stream,
        runtime.buffer(2) as there,
        runtime.pinned(2) as here,
        stream.capture(lambda: stream.upload(here, there, 2)) as graph,
    ):
        assert cuda_device.alive()["graph_exec"] == 1
        assert "graph" not in cuda_device.alive()
        here.array[:] = 8
        graph.launch(stream)
        here_again = runtime.pinned(2)
        stream.download(there, here_again, 2)
        stream.synchronise()
        assert here_again.array.tolist() == [8, 8]
        here_again.close()
    assert cuda_device.alive() == {}


def test_a_failed_capture_leaves_the_stream_usable(cuda_device):
    runtime = cuda.load()

    def fails():
        raise KeyError("mine")

    with runtime.stream() as stream, runtime.buffer(2) as there, runtime.pinned(2) as here:
        with pytest.raises(KeyError, match="mine"):
            stream.capture(fails)
        cuda_device.capture_refused = True
        with pytest.raises(cuda.CudaError, match="cudaStreamEndCapture: cudaErrorStreamCaptureInvalidated"):
            stream.capture(lambda: stream.upload(here, there, 2))
        cuda_device.capture_refused = False
        stream.capture(lambda: stream.upload(here, there, 2)).close()
        stream.synchronise()
    assert cuda_device.alive() == {}


def test_short_memory_is_one_line_with_numbers(cuda_device):
    runtime = cuda.load()
    with (
        runtime.buffer(cuda_device.memory // 4),
        pytest.raises(cuda.DeviceMemoryError, match=r"64\.0 MiB were asked for, 48\.0 of 64\.0 MiB are free") as e,
    ):
        runtime.buffer(cuda_device.memory)
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)
    assert cuda_device.alive() == {}


def test_other_failures_are_bugs_that_name_the_call(cuda_device):
    runtime = cuda.load()
    with pytest.raises(cuda.CudaError, match="cudaStreamSynchronize: cudaErrorInvalidResourceHandle: what"):
        runtime.call("cudaStreamSynchronize", 77)
    assert cuda_device.calls["cudaGetLastError"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"driver": 0}, r"no NVIDIA driver.*cudaErrorInsufficientDriver"),
        ({"present": False}, r"the driver sees no GPU.*cudaErrorNoDevice"),
    ],
)
def test_no_device_is_one_line(cuda_device, change, words):
    vars(cuda_device).update(change)
    with pytest.raises(MissingPartError, match=words) as e:
        cuda.load()
    assert "\n" not in str(e.value)


def test_no_cuda_python_is_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "cuda.bindings.runtime", raising=False)
    found = importlib.import_module

    def missing(name, *rest):
        if name.startswith("cuda"):
            raise ModuleNotFoundError(name)
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingPartError, match=r"cuda-python is not installed; pip install 'segdeploy\[trt\]'"):
        cuda.load()


def test_the_real_runtime_without_a_driver():
    real = pytest.importorskip("cuda.bindings.runtime")
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingPartError, match=r"no GPU that CUDA can use here: .*cudaError"):
        cuda.load()


def test_importing_needs_no_cuda_and_no_torch():
    code = (
        "import sys; import segdeploy.runtime.trt_runner\n"
        "sys.exit(str({'cuda', 'torch', 'tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0"
