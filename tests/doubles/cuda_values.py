"""Values of the CUDA double: the runtime's enums with the real numbers, handles, and places in a stream."""

import enum
from typing import Any

POISON = 0xCD


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
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


class Handle:
    """A stream, event, graph or executable graph: a number to the outside."""

    _next = iter(range(0x1000, 1 << 40, 0x10))

    def __init__(self, **state: Any) -> None:
        self.number = next(self._next)
        self.__dict__.update(state)

    def __int__(self) -> int:
        return self.number


class Mark:
    """Where in its stream an event was recorded."""

    def __init__(self) -> None:
        self.done = False


class Wait:
    """Holds a stream until the mark of another is passed."""

    def __init__(self, stream: Handle, mark: Mark) -> None:
        self.stream, self.mark = stream, mark
