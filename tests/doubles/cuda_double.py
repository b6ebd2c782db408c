"""A double of `cuda.bindings.runtime`: one device that does asynchronous work as late, or as unevenly, as it may.

Work on a stream waits in the stream's queue. With `seed=None` nothing of it happens before somebody synchronises, so
whoever reads too early reads poison. With a seed, queues advance at random at every call, each in its own order and
held back by events only, as on a real device: whoever forgets an event between two streams reads or overwrites the
wrong data for some seed. Every allocation is counted, freed memory is poisoned, and what real code gets away with
until it crashes (double free, use after free, misuse in a capture) is kept in `problems`.
"""

import ctypes
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
from cuda_calls import Calls
from cuda_values import Handle, Mark, Wait, cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode

E = cudaError_t
OK = E.cudaSuccess


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

    def enqueue(self, stream: Handle, work: Callable[[], None], touches: tuple[int, ...] = ()) -> None:
        """Puts `work` at the end of the stream, or into the graph that is being captured; `touches`: addresses."""
        if touches:
            work.touches = touches
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
        if isinstance(work, Wait):
            self._drain(work.stream, until=work.mark)
        elif isinstance(work, Mark):
            work.done = True
        else:
            work()

    def _drain(self, stream: Handle, until: "Mark | None" = None) -> None:
        while stream.queue and not (until is not None and until.done):
            self._step(stream)

    def synchronise(self) -> None:
        """Everything happens."""
        for stream in [self._legacy, *self.handles["stream"].values()]:
            self._drain(stream)

    def in_use(self, start: int, size: int) -> bool:
        """Whether work that waits will touch the block; a problem, although the real calls wait for it."""
        streams = [self._legacy, *self.handles["stream"].values()]
        waiting = [a for s in streams for work in s.queue for a in getattr(work, "touches", ())]
        found = any(start <= address < start + size for address in waiting)
        if found:
            self.problems.append(f"memory at {start:#x} is given back while work on it is pending")
        return found

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
        for name in dir(Calls):
            if name.startswith("cuda"):
                setattr(made, name, getattr(Calls(self), name))
        return made


def _is_free(work: Any) -> bool:
    return not isinstance(work, Wait) or work.mark.done
