"""A double of `cuda.bindings.runtime`: one device that does asynchronous work as late, or as unevenly, as it may.

Work on a stream waits in the stream's queue. With `seed=None` nothing of it happens before somebody synchronises, so
whoever reads too early reads poison. With a seed, queues advance at random at every call, each in its own order and
held back by events only, as on a real device: whoever forgets an event between two streams reads or overwrites the
wrong data for some seed. Every allocation is counted, freed memory is poisoned, and what real code gets away with
until it crashes (double free, use after free, misuse in a capture) is kept in `problems`.
"""

import ctypes
import enum
import importlib
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

POISON = 0xCD


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


E = cudaError_t
OK = E.cudaSuccess


class Handle:
    """A stream, event, graph or executable graph: a number to the outside."""

    _next = iter(range(0x1000, 1 << 40, 0x10))

    def __init__(self, **state: Any) -> None:
        self.number = next(self._next)
        self.__dict__.update(state)

    def __int__(self) -> int:
        return self.number


class Device:
    """The device, and the host memory that it knows."""

    def __init__(
        self,
        name: str = "Double RTX",
        capability: tuple[int, int] = (8, 6),
        driver: int = 13020,
        memory: int = 1 << 26,
        seed: int | None = None,
    ) -> None:
        self.name, self.capability, self.driver, self.memory = name, capability, driver, memory
        self.random = random.Random(seed) if seed is not None else None
        self.lock = threading.RLock()
        self.calls: Counter[str] = Counter()
        self.problems: list[str] = []
        self.blocks: dict[int, np.ndarray] = {}  # device address -> bytes
        self.pinned: dict[int, Any] = {}  # host address -> ctypes buffer
        self.buried: list[Any] = []  # freed pinned buffers stay mapped, full of poison
        self.handles: dict[str, dict[int, Handle]] = {"stream": {}, "event": {}, "graph": {}, "graph_exec": {}}
        self.scratch = 0  # what engines and contexts hold
        self.sticky = OK
        self.copied = 0
        self.peak = 0
        self.capture_refused = False  # plants: a capture that ends invalid
        self.replay_wrong = False  # plants: replays that write other bytes than the captured work
        self.replay_idle = False  # plants: replays that do nothing
        self.present = True
        self._address = 0x7F00_0000_0000
        self._legacy = Handle(queue=deque(), capture=None, invalid=False)

    # What tests ask

    def alive(self) -> dict[str, int]:
        """What was made and not given back, by kind; empty when all was."""
        counts = {kind: len(held) for kind, held in self.handles.items()}
        counts |= {"device": len(self.blocks), "pinned": len(self.pinned), "engine": self.scratch}
        return {kind: count for kind, count in counts.items() if count}

    @property
    def used(self) -> int:
        """Bytes of device memory in use."""
        return sum(b.nbytes for b in self.blocks.values()) + self.scratch

    def hold(self, size: int) -> bool:
        """Takes `size` bytes for an engine or a context; False where there is no room."""
        with self.lock:
            if self.used + size > self.memory:
                return False
            self.scratch += size
            return True

    def release(self, size: int) -> None:
        """Gives back what `hold` took."""
        with self.lock:
            if any(s.queue for s in self.handles["stream"].values()):
                self.problems.append("an engine or context was destroyed while work was pending")
            self.scratch -= size

    # Work

    def stream(self, stream: Any) -> Handle | None:
        """The stream behind a handle or number; 0 is the legacy stream; None where there is none."""
        number = 0 if stream is None else int(stream)
        return self._legacy if number == 0 else self.handles["stream"].get(number)

    def enqueue(self, stream: Handle, work: Callable[[], None]) -> None:
        """Puts `work` at the end of the stream, or into the graph that is being captured."""
        (stream.queue if stream.capture is None else stream.capture).append(work)
        self._advance()

    def _advance(self) -> None:
        if self.random is None:
            return
        streams = [self._legacy, *self.handles["stream"].values()]
        for _ in range(self.random.randrange(2 * len(streams) + 1)):
            stream = self.random.choice(streams)
            if stream.queue and _is_free(stream.queue[0]):
                self._step(stream)

    def _step(self, stream: Handle) -> None:
        work = stream.queue.popleft()
        if isinstance(work, _Wait):
            self._drain(work.stream, until=work.mark)
        elif isinstance(work, _Mark):
            work.done = True
        else:
            work()

    def _drain(self, stream: Handle, until: "_Mark | None" = None) -> None:
        while stream.queue and not (until is not None and until.done):
            self._step(stream)

    def synchronise(self) -> None:
        """Everything happens."""
        for stream in [self._legacy, *self.handles["stream"].values()]:
            self._drain(stream)

    # Memory

    def bytes_at(self, address: int, count: int) -> np.ndarray | None:
        """`count` bytes of device memory from `address`; None, and a problem, where they are not all allocated."""
        for start, block in self.blocks.items():
            if start <= address and address + count <= start + block.nbytes:
                return block[address - start : address - start + count]
        self.problems.append(f"device memory at {address:#x} (+{count}) is not allocated")
        self.sticky = E.cudaErrorIllegalAddress
        return None

    def pinned_at(self, address: int, count: int) -> np.ndarray | None:
        """`count` bytes of pinned host memory from `address`; None, and a problem, where they are not."""
        for start, block in [*self.pinned.items(), *((ctypes.addressof(b), b) for b in self.buried)]:
            size = ctypes.sizeof(block)
            if start <= address and address + count <= start + size:
                if start not in self.pinned:
                    self.problems.append(f"pinned memory at {address:#x} was freed before it was used")
                return np.frombuffer(block, np.uint8)[address - start : address - start + count]
        self.problems.append(f"host memory at {address:#x} (+{count}) is not pinned")
        self.sticky = E.cudaErrorInvalidValue
        return None

    def install(self, monkeypatch: Any) -> None:
        """Puts `module` where imports find it, whether cuda-python is installed or not."""
        module = self.module()
        try:
            package = importlib.import_module("cuda.bindings")
        except ImportError:
            package = ModuleType("cuda.bindings")
            monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
            monkeypatch.setitem(sys.modules, "cuda.bindings", package)
            monkeypatch.setattr(sys.modules["cuda"], "bindings", package, raising=False)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module)
        monkeypatch.setattr(package, "runtime", module, raising=False)

    def module(self) -> ModuleType:
        """What stands for `cuda.bindings.runtime`."""
        made = ModuleType("cuda.bindings.runtime")
        made.__spec__ = ModuleSpec(made.__name__, None)
        for cls in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
            setattr(made, cls.__name__, cls)
        made.cudaStreamNonBlocking, made.cudaEventDisableTiming = 1, 2
        for name in dir(_Calls):
            if name.startswith("cuda"):
                setattr(made, name, getattr(_Calls(self), name))
        return made


class _Mark:
    """Where in its stream an event was recorded."""

    def __init__(self) -> None:
        self.done = False


class _Wait:
    """Holds a stream until the mark of another is passed."""

    def __init__(self, stream: Handle, mark: _Mark) -> None:
        self.stream, self.mark = stream, mark


def _is_free(work: Any) -> bool:
    return not isinstance(work, _Wait) or work.mark.done


def _call(in_capture: bool = True, needs_device: bool = True, values: int = 0) -> Callable:
    """A call of the runtime: counted, locked, refused without a driver, and in a capture if it is not allowed there."""

    def wrap(function: Callable) -> Callable:
        def call(self: "_Calls", *arguments: Any) -> tuple:
            d, none = self.d, (None,) * values
            with d.lock:
                d.calls[function.__name__] += 1
                expected = function.__code__.co_argcount - 1
                if len(arguments) != expected:
                    raise TypeError(
                        f"{function.__name__}() takes exactly {expected} arguments ({len(arguments)} given)"
                    )
                if needs_device and not d.driver:
                    return (E.cudaErrorInsufficientDriver, *none)
                if needs_device and not d.present:
                    return (E.cudaErrorNoDevice, *none)
                if needs_device and d.sticky:
                    return (d.sticky, *none)
                if not in_capture:
                    for stream in d.handles["stream"].values():
                        if stream.capture is not None:
                            stream.invalid = True
                            d.problems.append(f"{function.__name__} in a capture")
                            return (E.cudaErrorStreamCaptureUnsupported, *none)
                d._advance()
                found = function(self, *arguments)
                found = found if isinstance(found, tuple) else (found,)
                return found if len(found) == values + 1 else (*found, *none)

        call.__name__ = function.__name__
        call.arity = function.__code__.co_argcount - 1
        return call

    return wrap


class _Calls:
    """The runtime's functions; each gives a tuple that begins with the error."""

    def __init__(self, device: Device) -> None:
        self.d = device

    # The device

    @_call(values=1)
    def cudaGetDeviceCount(self):
        return OK, 1

    @_call(values=1)
    def cudaGetDevice(self):
        return OK, 0

    @_call()
    def cudaSetDevice(self, device):
        return OK if device == 0 else E.cudaErrorInvalidDevice

    @_call(values=1)
    def cudaGetDeviceProperties(self, device):
        if device != 0:
            return E.cudaErrorInvalidDevice
        return OK, Handle(
            name=self.d.name.encode(),
            major=self.d.capability[0],
            minor=self.d.capability[1],
            totalGlobalMem=self.d.memory,
        )

    @_call(values=2)
    def cudaMemGetInfo(self):
        return OK, self.d.memory - self.d.used, self.d.memory

    @_call(needs_device=False, values=1)
    def cudaDriverGetVersion(self):
        return OK, self.d.driver

    @_call(needs_device=False, values=1)
    def cudaRuntimeGetVersion(self):
        return OK, 13050

    @_call(needs_device=False, values=1)
    def cudaGetErrorName(self, error):
        return OK, cudaError_t(error).name.encode()

    @_call(needs_device=False, values=1)
    def cudaGetErrorString(self, error):
        return OK, f"what {cudaError_t(error).name} says".encode()

    @_call(needs_device=False)
    def cudaGetLastError(self):
        return OK

    @_call(in_capture=False)
    def cudaDeviceSynchronize(self):
        self.d.synchronise()
        return self.d.sticky

    # Memory

    @_call(in_capture=False, values=1)
    def cudaMalloc(self, size):
        d = self.d
        if d.used + size > d.memory:
            return E.cudaErrorMemoryAllocation
        address = d._address
        d._address += -(-size // 256) * 256 + 4096  # 256-byte alignment, and a gap that belongs to nobody
        d.blocks[address] = np.full(size, POISON, np.uint8)
        d.peak = max(d.peak, d.used)
        return OK, address

    @_call(in_capture=False)
    def cudaFree(self, address):
        if address == 0:
            return OK
        if address not in self.d.blocks:
            self.d.problems.append(f"cudaFree of {address:#x}, which is not allocated")
            return E.cudaErrorInvalidValue
        self.d.synchronise()  # as the real one does
        self.d.blocks.pop(address)[:] = POISON
        return OK

    @_call(in_capture=False, values=1)
    def cudaMallocHost(self, size):
        buffer = (ctypes.c_ubyte * size)()
        ctypes.memset(buffer, POISON, size)
        self.d.pinned[ctypes.addressof(buffer)] = buffer
        return OK, ctypes.addressof(buffer)

    @_call(in_capture=False)
    def cudaFreeHost(self, address):
        if address not in self.d.pinned:
            self.d.problems.append(f"cudaFreeHost of {address:#x}, which is not allocated")
            return E.cudaErrorInvalidValue
        self.d.synchronise()
        buffer = self.d.pinned.pop(address)
        ctypes.memset(buffer, POISON, ctypes.sizeof(buffer))
        self.d.buried.append(buffer)
        return OK

    @_call()
    def cudaMemcpyAsync(self, target, source, count, kind, stream):
        d, on = self.d, self.d.stream(stream)
        if not isinstance(kind, cudaMemcpyKind):
            raise TypeError("Argument 'kind' has incorrect type")
        if on is None:
            return E.cudaErrorInvalidResourceHandle
        ends = {1: (d.bytes_at, d.pinned_at), 2: (d.pinned_at, d.bytes_at), 3: (d.bytes_at, d.bytes_at)}.get(int(kind))
        if ends is None:
            return E.cudaErrorInvalidValue
        target, source = int(target), int(source)

        def copy():
            into, out_of = ends[0](target, count), ends[1](source, count)
            if into is not None and out_of is not None:
                into[:] = out_of
                d.copied += count

        d.enqueue(on, copy)
        return OK

    # Streams and events

    @_call(in_capture=False, values=1)
    def cudaStreamCreateWithFlags(self, flags):
        if flags not in (0, 1):
            return E.cudaErrorInvalidValue
        return self._keep("stream", queue=deque(), capture=None, invalid=False)

    @_call(in_capture=False)
    def cudaStreamDestroy(self, stream):
        return self._drop("stream", stream)

    @_call(in_capture=False)
    def cudaStreamSynchronize(self, stream):
        on = self.d.stream(stream)
        if on is None:
            return E.cudaErrorInvalidResourceHandle
        self.d._drain(on)
        return self.d.sticky

    @_call()
    def cudaStreamWaitEvent(self, stream, event, flags):
        on, known = self.d.stream(stream), self.d.handles["event"].get(int(event))
        if on is None or known is None:
            return E.cudaErrorInvalidResourceHandle
        if known.mark is not None:
            self.d.enqueue(on, _Wait(known.stream, known.mark))
        return OK

    @_call(values=1)
    def cudaEventCreateWithFlags(self, flags):
        return self._keep("event", mark=None, stream=None, timing=not flags & 2)

    @_call()
    def cudaEventDestroy(self, event):
        return self._drop("event", event)

    @_call()
    def cudaEventRecord(self, event, stream):
        on, known = self.d.stream(stream), self.d.handles["event"].get(int(event))
        if on is None or known is None:
            return E.cudaErrorInvalidResourceHandle
        known.stream, known.mark = on, _Mark()
        self.d.enqueue(on, known.mark)
        return OK

    @_call(in_capture=False)
    def cudaEventSynchronize(self, event):
        known = self.d.handles["event"].get(int(event))
        if known is None:
            return E.cudaErrorInvalidResourceHandle
        if known.mark is not None:
            self.d._drain(known.stream, until=known.mark)
        return self.d.sticky

    @_call(values=1)
    def cudaEventElapsedTime(self, start, end):
        both = [self.d.handles["event"].get(int(e)) for e in (start, end)]
        if any(e is None or not e.timing or e.mark is None for e in both):
            return E.cudaErrorInvalidResourceHandle
        return OK, 1.25

    # Graphs

    @_call()
    def cudaStreamBeginCapture(self, stream, mode):
        on = self.d.stream(stream)
        if not isinstance(mode, cudaStreamCaptureMode):
            raise TypeError("Argument 'mode' has incorrect type")
        if on is None or on is self.d._legacy or on.capture is not None:
            return E.cudaErrorStreamCaptureUnsupported
        on.capture, on.invalid = [], False
        return OK

    @_call(values=1)
    def cudaStreamEndCapture(self, stream):
        on = self.d.stream(stream)
        if on is None or on.capture is None:
            return E.cudaErrorInvalidValue
        work, on.capture = on.capture, None
        if on.invalid or self.d.capture_refused:
            return E.cudaErrorStreamCaptureInvalidated
        return self._keep("graph", work=work)

    @_call(values=1)
    def cudaGraphInstantiate(self, graph, flags):
        known = self.d.handles["graph"].get(int(graph))
        return E.cudaErrorInvalidValue if known is None else self._keep("graph_exec", work=list(known.work))

    @_call()
    def cudaGraphLaunch(self, graph, stream):
        on, known = self.d.stream(stream), self.d.handles["graph_exec"].get(int(graph))
        if on is None or known is None:
            self.d.problems.append("launch of a graph that is gone")
            return E.cudaErrorInvalidValue
        for work in () if self.d.replay_idle else known.work:
            self.d.enqueue(on, work)
        if self.d.replay_wrong:
            self.d.enqueue(on, lambda: [block.__setitem__(slice(None), 0) for block in self.d.blocks.values()])
        return OK

    @_call()
    def cudaGraphDestroy(self, graph):
        return self._drop("graph", graph)

    @_call()
    def cudaGraphExecDestroy(self, graph):
        return self._drop("graph_exec", graph)

    def _keep(self, kind: str, **state: Any) -> tuple:
        made = Handle(**state)
        self.d.handles[kind][int(made)] = made
        return OK, made

    def _drop(self, kind: str, handle: Any) -> Any:
        gone = self.d.handles[kind].pop(int(handle), None)
        if gone is None:
            self.d.problems.append(f"{kind} {int(handle):#x} destroyed, which is not there")
            return E.cudaErrorInvalidResourceHandle
        if kind == "stream":
            self.d._drain(gone)  # the work goes on; the handle is gone
        return OK
