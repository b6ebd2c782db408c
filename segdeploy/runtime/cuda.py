"""The CUDA runtime through cuda-python: every call checked, everything that is made given back. Needs no torch.

cuda = load()
with cuda.stream() as stream, cuda.buffer(n) as there, cuda.pinned(n) as here:
    here.array[:] = values
    stream.upload(here, there, n)
    stream.synchronise()
"""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.errors import MissingPartError, SegdeployError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

_INSTALL = "pip install 'segdeploy[trt]' (or cuda-python alone)"
_NO_DEVICE = {
    "cudaErrorInsufficientDriver": "there is no NVIDIA driver, or it is older than this cuda-python",
    "cudaErrorNoDevice": "the driver sees no GPU",
    "cudaErrorInitializationError": "the driver cannot start",
    "cudaErrorSystemNotReady": "the driver is not ready",
    "cudaErrorSystemDriverMismatch": "the driver's parts are of different versions",
    "cudaErrorDevicesUnavailable": "every GPU is busy or reserved",
}
_MIB = 2**20


class DeviceMemoryError(SegdeployError):
    """The GPU has no room for what was asked."""


class CudaError(RuntimeError):
    """A call that failed for another reason than a missing device or memory: a bug, or a broken device."""


class Cuda:
    """The runtime's module, with calls that raise."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def call(self, name: str, *arguments: Any, asked: int = 0) -> Any:
        """Call `name` and give what it returns behind the error: nothing, a value, or a tuple of values.

        Args:
            name: such as "cudaMalloc".
            arguments: as the runtime takes them.
            asked: bytes, for the message where memory is short.

        Raises:
            MissingPartError: no driver or no device.
            DeviceMemoryError: no room.
            CudaError: anything else.
        """
        error, *values = getattr(self.module, name)(*arguments)
        if error != self.module.cudaError_t.cudaSuccess:
            raise self._failed(name, error, asked)
        return values[0] if len(values) == 1 else tuple(values) or None

    def _failed(self, name: str, error: Any, asked: int) -> Exception:
        self.module.cudaGetLastError()  # else it is told again by a call that has nothing to do with it
        if (reason := _NO_DEVICE.get(error.name)) is not None:
            return MissingPartError(f"no GPU that CUDA can use here: {reason} ({error.name})")
        if error.name == "cudaErrorMemoryAllocation" and name == "cudaMallocHost":
            return DeviceMemoryError(
                f"page-locked host memory: {asked / _MIB:,.1f} MiB were asked for; end other programs"
            )
        if error.name == "cudaErrorMemoryAllocation":
            return DeviceMemoryError(f"{self.memory_text(asked)}; use a smaller batch or image, or free the GPU")
        said = self.module.cudaGetErrorString(error)[1]
        return CudaError(f"{name}: {error.name}: {said.decode() if isinstance(said, bytes) else said}")

    def memory_text(self, asked: int) -> str:
        """That `asked` bytes were not to be had, and how many are free."""
        error, *room = self.module.cudaMemGetInfo()
        said = f"GPU memory: {asked / _MIB:,.1f} MiB were asked for"
        if error != self.module.cudaError_t.cudaSuccess:
            return said
        free, total = room
        return f"{said}, {free / _MIB:,.1f} of {total / _MIB:,.1f} MiB are free"

    def buffer(self, nbytes: int) -> Buffer:
        """Device memory."""
        return Buffer(self, nbytes)

    def pinned(self, nbytes: int) -> PinnedBuffer:
        """Host memory that copies can run beside."""
        return PinnedBuffer(self, nbytes)

    def stream(self) -> Stream:
        """A stream of its own, which does not wait for the default stream."""
        return Stream(self)

    def event(self, *, timing: bool = False) -> Event:
        """A point in a stream to wait for, and with `timing` to measure from and to."""
        return Event(self, timing=timing)

    @property
    def version(self) -> str:
        """Of the CUDA runtime, such as 13.0."""
        found = self.call("cudaRuntimeGetVersion")
        return f"{found // 1000}.{found % 1000 // 10}"


def load() -> Cuda:
    """The CUDA runtime, with at least one device.

    Raises:
        MissingPartError: cuda-python is not installed or cannot start, no driver, or no GPU.
    """
    try:
        module = importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as e:
        raise MissingPartError(f"cuda-python is not installed; {_INSTALL}") from e
    except (ImportError, OSError, RuntimeError) as e:
        raise MissingPartError(f"cuda-python cannot start: {first_line(e)}; {_INSTALL}") from e
    cuda = Cuda(module)
    if not cuda.call("cudaGetDeviceCount"):
        raise MissingPartError(f"no GPU that CUDA can use here: {_NO_DEVICE['cudaErrorNoDevice']}")
    return cuda


class Resource:
    """Something of the runtime's that must be given back, once; giving back again does nothing."""

    def __init__(self, cuda: Cuda, handle: Any, give_back: str) -> None:
        self.cuda, self.handle = cuda, handle
        self._give_back = give_back

    def close(self) -> None:
        """Give it back."""
        if self.handle is not None:
            handle, self.handle = self.handle, None
            self.cuda.call(self._give_back, handle)

    def __int__(self) -> int:
        return int(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Buffer(Resource):
    """`nbytes` bytes of device memory, aligned to 256; `int(buffer)` is the address. DeviceMemoryError: no room."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        super().__init__(cuda, cuda.call("cudaMalloc", nbytes, asked=nbytes), "cudaFree")
        self.nbytes = nbytes


class PinnedBuffer(Resource):
    """`nbytes` bytes of page-locked host memory; `array` shows them, uint8, and must not be used after `close`."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        super().__init__(cuda, cuda.call("cudaMallocHost", nbytes, asked=nbytes), "cudaFreeHost")
        self.nbytes = nbytes
        memory = (ctypes.c_uint8 * nbytes).from_address(int(self.handle))
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)


class Event(Resource):
    """A point in a stream that others can wait for; it keeps the time only with `timing`."""

    def __init__(self, cuda: Cuda, *, timing: bool = False) -> None:
        flags = 0 if timing else cuda.module.cudaEventDisableTiming
        super().__init__(cuda, cuda.call("cudaEventCreateWithFlags", flags), "cudaEventDestroy")

    def record(self, stream: Stream) -> None:
        """Let it stand behind all that `stream` was given so far."""
        self.cuda.call("cudaEventRecord", self.handle, stream.handle)

    def synchronise(self) -> None:
        """Wait until the stream has come past it."""
        self.cuda.call("cudaEventSynchronize", self.handle)

    def seconds_since(self, start: Event) -> float:
        """The device's time between two events with timing, both of which its stream has come past."""
        milliseconds: float = self.cuda.call("cudaEventElapsedTime", start.handle, self.handle)
        return milliseconds / 1e3


class Stream(Resource):
    """A queue of work on the device."""

    def __init__(self, cuda: Cuda) -> None:
        flags = cuda.module.cudaStreamNonBlocking
        super().__init__(cuda, cuda.call("cudaStreamCreateWithFlags", flags), "cudaStreamDestroy")

    def upload(self, source: PinnedBuffer, target: Buffer, nbytes: int) -> None:
        """Copy host to device; `source` must not change before the stream has done it."""
        self._copy(target, source, nbytes, "cudaMemcpyHostToDevice")

    def download(self, source: Buffer, target: PinnedBuffer, nbytes: int) -> None:
        """Copy device to host; `target` must not be read before the stream has done it."""
        self._copy(target, source, nbytes, "cudaMemcpyDeviceToHost")

    def _copy(self, target: Resource, source: Resource, nbytes: int, kind: str) -> None:
        direction = getattr(self.cuda.module.cudaMemcpyKind, kind)
        self.cuda.call("cudaMemcpyAsync", int(target), int(source), nbytes, direction, self.handle)

    def wait_for(self, event: Event) -> None:
        """Do nothing more before `event`."""
        self.cuda.call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def synchronise(self) -> None:
        """Wait until all is done."""
        self.cuda.call("cudaStreamSynchronize", self.handle)

    def capture(self, launch: Callable[[], None]) -> Graph:
        """The work that `launch` puts on this stream, recorded and not done.

        Raises:
            CudaError: it cannot be captured. What `launch` raises passes through. The stream can be used again.
        """
        mode = self.cuda.module.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.cuda.call("cudaStreamBeginCapture", self.handle, mode)
        try:
            launch()
        except BaseException:
            _, graph = self.cuda.module.cudaStreamEndCapture(self.handle)
            self.cuda.module.cudaGetLastError()
            if graph is not None:
                self.cuda.module.cudaGraphDestroy(graph)
            raise
        graph = self.cuda.call("cudaStreamEndCapture", self.handle)
        try:
            return Graph(self.cuda, graph)
        finally:
            self.cuda.call("cudaGraphDestroy", graph)


class Graph(Resource):
    """Captured work, ready to be launched again and again."""

    def __init__(self, cuda: Cuda, graph: Any) -> None:
        super().__init__(cuda, cuda.call("cudaGraphInstantiate", graph, 0), "cudaGraphExecDestroy")

    def launch(self, stream: Stream) -> None:
        """Put the work on `stream`."""
        self.cuda.call("cudaGraphLaunch", self.handle, stream.handle)
