"""Everything that one chunk of one shape needs on the device, and its CUDA graph.

A captured graph holds addresses and the state of its context, and a context that changes later makes it undefined; so
a lane keeps its context, shape and buffers for life. A graph is used only after its first replay gave the labels that
the engine gave without it.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.errors import ModelError
from segdeploy.runtime.cuda import CudaError, DeviceMemoryError, Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segdeploy.runtime.trt_session import Session

log = logging.getLogger(__name__)

Shape = tuple[int, ...]


class EngineError(ModelError):
    """The library refused a call for a reason that only its log tells."""


class Lane:
    """Everything that one chunk of one shape needs: a context, buffers on both sides, and the captured graph."""

    def __init__(self, session: Session, profile: int, shape: Shape) -> None:
        self.session, self.shape = session, shape
        self.graph: Graph | None = None
        cuda = session.cuda
        pixels = int(np.prod(shape[:3]))
        with ExitStack() as made:
            made.callback(self._forget_context)
            self.context = _context(session)
            if profile:
                if not self.context.set_optimization_profile_async(profile, int(session.work)):
                    raise EngineError(f"{session.name}: profile {profile} cannot be chosen")
                session.work.synchronise()  # no shape may be set before
            self.image_here = made.enter_context(cuda.pinned(3 * pixels))
            self.image_there = made.enter_context(cuda.buffer(3 * pixels))
            self.mask_here = made.enter_context(cuda.pinned(pixels))
            self.mask_there = made.enter_context(cuda.buffer(pixels))
            self.copied_in = made.enter_context(cuda.event())
            self.started = made.enter_context(cuda.event(timing=True))
            self.computed = made.enter_context(cuda.event(timing=True))
            self.done = made.enter_context(cuda.event())
            self._prepare()
            made.callback(self._drop_graph)
            self._made = made.pop_all()
        self._is_first = True

    def _prepare(self) -> None:
        session = self.session
        with session.flavour.listening() as heard:  # no name for the context: a traceback would keep it
            if not self.context.set_input_shape("image", self.shape):
                raise EngineError(f"{session.name}: refuses the shape {shape_text(self.shape)}: {heard.reason}")
            if missing := self.context.infer_shapes():
                raise EngineError(f"{session.name}: the shape of {', '.join(missing)} is not known")
            if (found := tuple(self.context.get_tensor_shape("mask"))) != self.shape[:3]:
                raise EngineError(
                    f"{session.name}: expected a mask {shape_text(self.shape[:3])}, found {shape_text(found)}"
                )
            if session.scratch is not None:
                self.context.set_device_memory(int(session.scratch), session.scratch.nbytes)
            for name, buffer in (("image", self.image_there), ("mask", self.mask_there)):
                if not self.context.set_tensor_address(name, int(buffer)):
                    raise EngineError(f"{session.name}: refuses the address of {name}: {heard.reason}")

    def submit(self, images: NDArray[np.uint8]) -> None:
        """Start on `images`, at most as many as the lane has rows; rows without an image compute what was there."""
        self.image_here.array.reshape(self.shape)[: len(images)] = images
        self._upload()
        self.started.record(self.session.work)
        if self._is_first:
            self._is_first = False
            self._first()
        else:
            self._compute()
        self.computed.record(self.session.work)
        self._download()

    def collect(self, count: int) -> NDArray[np.uint8]:
        """Wait for the labels of the first `count` images: a view (count, H, W) that lasts until the next `submit`."""
        self.done.synchronise()
        return self.mask_here.array.reshape(self.shape[:3])[:count]

    @property
    def seconds(self) -> float:
        """The device's time from the images' arrival to the labels; after `collect`."""
        return self.computed.seconds_since(self.started)

    def _upload(self) -> None:
        session = self.session
        session.copies.upload(self.image_here, self.image_there, self.image_here.nbytes)
        self.copied_in.record(session.copies)
        session.work.wait_for(self.copied_in)

    def _download(self) -> None:
        work = self.session.work
        work.download(self.mask_there, self.mask_here, self.mask_here.nbytes)
        self.done.record(work)

    def _compute(self) -> None:
        if self.graph is not None:
            self.graph.launch(self.session.work)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        session = self.session
        with session.flavour.listening() as heard:
            if not self.context.execute_async_v3(int(session.work)):
                raise EngineError(f"{session.name}: the engine cannot run: {heard.reason or 'it does not say why'}")

    def _first(self) -> None:
        """Run once without a graph, which also loads kernels that no capture may load; then with one, and compare."""
        session = self.session
        self._enqueue()
        said = "eager: as asked"
        if session.captures_itself:
            said = "graph: by TensorRT for RTX"
        elif session.graphs:
            said = self._capture()
        shape = shape_text(self.shape)
        if not session.modes.get(shape, "").startswith("eager"):  # of two lanes the worse one is told
            session.modes[shape] = said
        if session.graphs and said.startswith("eager"):
            log.warning("%s at %s: no CUDA graph, %s", session.name, shape, said)

    def _capture(self) -> str:
        work = self.session.work
        self._download()
        work.synchronise()
        eager = self.mask_here.array.copy()
        try:
            self.graph = work.capture(self._enqueue)
        except (CudaError, EngineError) as e:
            return f"eager: it cannot be captured: {e}"
        np.invert(eager, out=self.mask_here.array)  # else a replay that does nothing would look right
        work.upload(self.mask_here, self.mask_there, self.mask_here.nbytes)
        self.graph.launch(work)
        self._download()
        work.synchronise()
        if np.array_equal(self.mask_here.array, eager):
            return "graph"
        self._drop_graph()
        self.mask_here.array[:] = eager
        work.upload(self.mask_here, self.mask_there, self.mask_here.nbytes)
        return "eager: the graph's labels were not those of the engine"

    def _drop_graph(self) -> None:
        if self.graph is not None:
            self.graph.close()
            self.graph = None

    def _forget_context(self) -> None:
        self.context = None

    def close(self) -> None:
        """Give all of it back; nothing of it may be under way."""
        self._made.close()


def shape_text(shape: Shape) -> str:
    """(4, 64, 96, 3) as 4x64x96x3."""
    return "x".join(map(str, shape))


def _context(session: Session) -> Any:
    with session.flavour.listening() as heard:
        context = session.engine.create_execution_context(session.config)
    if context is None:
        raise DeviceMemoryError(
            f"{session.name}: no room for an execution context: {heard.reason or session.cuda.memory_text(0)}; "
            "use a smaller batch or image, or free the GPU"
        )
    return context
