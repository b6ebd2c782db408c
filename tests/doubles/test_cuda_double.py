"""The double against the real `cuda.bindings.runtime`, and that it catches what it is there to catch."""

import ctypes
import importlib
import inspect

import numpy as np
import pytest
from cuda_double import Device, _Calls, cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode

H2D, D2H = cudaMemcpyKind.cudaMemcpyHostToDevice, cudaMemcpyKind.cudaMemcpyDeviceToHost
LOCAL = cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
NAMES = [name for name in dir(_Calls) if name.startswith("cuda")]


def real():
    return pytest.importorskip("cuda.bindings.runtime")


@pytest.mark.parametrize("name", NAMES)
def test_arities_are_the_real_ones(name):
    function = getattr(real(), name)
    assert getattr(_Calls, name).arity == len(inspect.signature(function).parameters)


def test_members_and_constants_are_the_real_ones():
    module, double = real(), Device().module()
    for enum in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
        for member in enum:
            assert int(getattr(getattr(module, enum.__name__), member.name)) == int(member)
    for name in ("cudaStreamNonBlocking", "cudaEventDisableTiming"):
        assert getattr(module, name) == getattr(double, name)


def test_without_a_driver_it_answers_as_the_real_one():
    module, double = real(), Device(driver=0).module()
    if module.cudaGetDeviceCount()[0].name != "cudaErrorInsufficientDriver":
        pytest.skip("this machine has a driver")
    calls = [
        ("cudaGetDeviceCount",),
        ("cudaMalloc", 8),
        ("cudaMallocHost", 8),
        ("cudaStreamCreateWithFlags", 1),
        ("cudaStreamSynchronize", 0),
        ("cudaEventCreateWithFlags", 2),
        ("cudaStreamEndCapture", 0),
        ("cudaDriverGetVersion",),
        ("cudaMemGetInfo",),
        ("cudaFree", 0),
    ]
    for name, *arguments in calls:
        found, expected = getattr(double, name)(*arguments), getattr(module, name)(*arguments)
        assert [int(found[0]), *found[1:]] == [int(expected[0]), *expected[1:]], name


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def cuda(device):
    return device.module()


def pinned(cuda, size=4):
    address = cuda.cudaMallocHost(size)[1]
    return address, np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def test_copies_happen_when_somebody_waits(device, cuda):
    stream, there, (here, view) = cuda.cudaStreamCreateWithFlags(1)[1], cuda.cudaMalloc(4)[1], pinned(cuda)
    view[:] = 7
    cuda.cudaMemcpyAsync(there, here, 4, H2D, stream)
    cuda.cudaMemcpyAsync(here, there, 4, D2H, stream)
    view[:] = 9  # too early: the copy has not read it yet
    cuda.cudaStreamSynchronize(stream)
    assert view.tolist() == [9] * 4
    assert there % 256 == 0


def test_leaks_and_misuse_are_seen(device, cuda):
    there = cuda.cudaMalloc(4)[1]
    stream = cuda.cudaStreamCreateWithFlags(1)[1]
    assert device.alive() == {"device": 1, "stream": 1}
    assert cuda.cudaFree(there) == (0,)
    assert cuda.cudaFree(there)[0] == cudaError_t.cudaErrorInvalidValue
    assert "not allocated" in device.problems.pop()
    here, view = pinned(cuda)
    cuda.cudaFreeHost(here)
    assert view.tolist() == [0xCD] * 4  # who still reads it, reads poison
    cuda.cudaMemcpyAsync(there, here, 4, H2D, stream)
    assert cuda.cudaStreamSynchronize(stream)[0] == cudaError_t.cudaErrorIllegalAddress
    assert device.problems
    assert cuda.cudaMalloc(4)[0] == cudaError_t.cudaErrorIllegalAddress  # sticky, as on a device


def test_memory_is_finite(cuda, device):
    assert cuda.cudaMalloc(device.memory + 1) == (cudaError_t.cudaErrorMemoryAllocation, None)
    assert cuda.cudaMalloc(device.memory)[0] == 0
    assert cuda.cudaMemGetInfo() == (0, 0, device.memory)


@pytest.mark.parametrize("seed", [None, *range(20)])
def test_a_forgotten_event_shows_for_some_seed(seed):
    device = Device(seed=seed)
    cuda = device.module()

    def between_streams(wait):
        first, second = (cuda.cudaStreamCreateWithFlags(1)[1] for _ in range(2))
        there, (here, view), (back, found) = cuda.cudaMalloc(4)[1], pinned(cuda), pinned(cuda)
        event = cuda.cudaEventCreateWithFlags(2)[1]
        view[:] = 5
        cuda.cudaMemcpyAsync(there, here, 4, H2D, first)
        cuda.cudaEventRecord(event, first)
        if wait:
            cuda.cudaStreamWaitEvent(second, event, 0)
        cuda.cudaMemcpyAsync(back, there, 4, D2H, second)
        cuda.cudaStreamSynchronize(second)
        return found.tolist() == [5] * 4

    assert between_streams(wait=True)
    if seed is None:
        assert not between_streams(wait=False)


def test_graphs_replay_what_was_captured(device, cuda):
    stream, there, (here, view) = cuda.cudaStreamCreateWithFlags(1)[1], cuda.cudaMalloc(4)[1], pinned(cuda)
    assert cuda.cudaStreamBeginCapture(stream, LOCAL) == (0,)
    cuda.cudaMemcpyAsync(there, here, 4, H2D, stream)
    graph = cuda.cudaStreamEndCapture(stream)[1]
    run = cuda.cudaGraphInstantiate(graph, 0)[1]
    cuda.cudaGraphDestroy(graph)
    for value in (1, 2):
        view[:] = value
        cuda.cudaGraphLaunch(run, stream)
        cuda.cudaStreamSynchronize(stream)
        assert device.bytes_at(there, 4).tolist() == [value] * 4
    assert device.alive() == {"stream": 1, "device": 1, "pinned": 1, "graph_exec": 1}


def test_no_waiting_in_a_capture(device, cuda):
    stream = cuda.cudaStreamCreateWithFlags(1)[1]
    cuda.cudaStreamBeginCapture(stream, LOCAL)
    assert cuda.cudaStreamSynchronize(stream)[0] == cudaError_t.cudaErrorStreamCaptureUnsupported
    assert cuda.cudaStreamEndCapture(stream) == (cudaError_t.cudaErrorStreamCaptureInvalidated, None)


def test_it_stands_where_imports_look(cuda_device):
    from cuda.bindings import runtime

    assert runtime is importlib.import_module("cuda.bindings.runtime")
    assert runtime.cudaGetDeviceCount() == (0, 1)
