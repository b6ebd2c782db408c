"""The functions of the CUDA double; each gives a tuple that begins with the error."""

import ctypes
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda_values import POISON, Handle, Mark, Wait, cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode

E = cudaError_t
OK = E.cudaSuccess


def _call(in_capture: bool = True, needs_device: bool = True, values: int = 0) -> Callable:
    """A call of the runtime: counted, locked, refused without a driver, and in a capture if it is not allowed there."""

    def wrap(function: Callable) -> Callable:
        def call(self: "Calls", *arguments: Any) -> tuple:
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


class Calls:
    """The runtime's functions; each gives a tuple that begins with the error."""

    def __init__(self, device: Any) -> None:
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
        if self.d.in_use(address, self.d.blocks[address].nbytes):
            self.d.synchronise()  # as the real one does, though always
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
        if self.d.in_use(address, ctypes.sizeof(self.d.pinned[address])):
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

        d.enqueue(on, copy, (target, source))
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
            self.d.enqueue(on, Wait(known.stream, known.mark))
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
        known.stream, known.mark = on, Mark()
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
        if not all(e.mark.done for e in both):
            return E.cudaErrorNotReady
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
