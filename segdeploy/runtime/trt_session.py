"""A deserialised engine on the device: streams, contexts, buffers and CUDA graphs, and a batch's way through them.

A batch that is larger than the engine allows goes in chunks. Two lanes take turns: while one computes, the next
chunk is copied in on a stream of its own. The rules that the order below keeps:

- a lane's buffers are filled again only after its labels were collected, so the host never overtakes the device;
- all computing is on one stream, so that every context can use the same scratch memory;
- a captured graph holds addresses and the state of its context, so a context keeps its shape and its buffers for life.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.errors import DataError, ModelError
from segdeploy.runtime.cuda import CudaError, DeviceMemoryError, Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segdeploy.runtime.cuda import Cuda
    from segdeploy.runtime.trt import Flavour

log = logging.getLogger(__name__)

Shape = tuple[int, ...]
KEPT_SHAPES = 8
"""Shapes whose contexts, buffers and graphs are kept; the one that was used longest ago goes first."""


class EngineError(ModelError):
    """The library refused a call for a reason that only its log tells."""


class Session:
    """Streams, scratch memory and lanes of one engine; everything on the device goes with `close`."""

    def __init__(self, flavour: Flavour, engine: Any, cuda: Cuda, name: str, *, graphs: bool = True) -> None:
        self.flavour, self.engine, self.cuda, self.name, self.graphs = flavour, engine, cuda, name, graphs
        self.ranges = _ranges(flavour, engine, name)
        self.config = _runtime_config(flavour, engine)
        # TensorRT for RTX captures on its own, and knows best when it compiles kernels in between.
        self.captures_itself = _let_it_capture(flavour, self.config) if graphs else False
        self.modes: dict[str, str] = {}
        """How each shape runs: "graph", or "eager" and why."""
        self._lanes: OrderedDict[tuple[int, Shape, int], Lane] = OrderedDict()
        with ExitStack() as made:
            self.copies = made.enter_context(cuda.stream())
            self.work = made.enter_context(cuda.stream())
            size = engine.device_memory_size_v2
            self.scratch = made.enter_context(cuda.buffer(size)) if size else None
            self._made = made.pop_all()

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """image (N, H, W, 3) uint8 -> labels (N, H, W) uint8.

        Raises:
            DataError: the shape is outside every profile. DeviceMemoryError: no room. EngineError: see there.
        """
        if image.dtype != np.uint8:
            raise DataError(f"{self.name}: expected images of uint8, found {image.dtype}")
        profile, sizes = self._chunks(image.shape)
        labels = np.empty(image.shape[:3], np.uint8)
        under_way: list[tuple[Lane, int, int]] = []
        try:
            start = 0
            for turn, (count, rows) in enumerate(sizes):
                if len(under_way) == 2:
                    _collect(under_way.pop(0), labels)
                lane = self._lane(profile, (rows, *image.shape[1:]), turn % 2)
                lane.submit(image[start : start + count])
                under_way.append((lane, start, count))
                start += count
            while under_way:
                _collect(under_way.pop(0), labels)
        except BaseException:
            self._give_up()
            raise
        return labels

    def _chunks(self, shape: Shape) -> tuple[int, list[tuple[int, int]]]:
        """The profile, and for each chunk the images in it and the rows that the engine computes."""
        for profile, (low, high) in enumerate(self.ranges):
            if len(shape) == len(low) and all(
                a <= s <= b for a, s, b in zip(low[1:], shape[1:], high[1:], strict=True)
            ):
                most, least = high[0], low[0]
                counts = [min(most, shape[0] - i) for i in range(0, shape[0], most)]
                return profile, [(count, max(count, least)) for count in counts]
        allowed = "; or ".join(f"{_text(low[1:])} to {_text(high[1:])}" for low, high in self.ranges)
        raise DataError(
            f"{self.name}: the engine takes images of (height, width, 3) {allowed}, found {_text(shape[1:])}; "
            "resize them, or build an engine for this size"
        )

    def _lane(self, profile: int, shape: Shape, turn: int) -> Lane:
        key = (profile, shape, turn)
        lane = self._lanes.pop(key, None)
        if lane is None:
            while len({k[:2] for k in self._lanes}) >= KEPT_SHAPES and key[:2] not in {k[:2] for k in self._lanes}:
                self._forget(next(iter(self._lanes))[:2])
            lane = Lane(self, profile, shape)
        self._lanes[key] = lane
        return lane

    def _forget(self, shape: tuple[int, Shape]) -> None:
        for key in [k for k in self._lanes if k[:2] == shape]:
            self._lanes.pop(key).close()

    def _give_up(self) -> None:
        """After an error: wait for what is under way, and begin with new lanes."""
        with ExitStack() as closing:
            for lane in self._lanes.values():
                closing.callback(lane.close)
            self._lanes.clear()
            closing.callback(self.work.synchronise)
            closing.callback(self.copies.synchronise)

    def close(self) -> None:
        """Wait for the device, then give everything back; the engine itself goes with its last reference."""
        with self._made:
            self._give_up()
        self.engine = self.config = None


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
            if profile and not self.context.set_optimization_profile_async(profile, int(session.work)):
                raise EngineError(f"{session.name}: profile {profile} cannot be chosen")
            session.work.synchronise()
            self.image_here = made.enter_context(cuda.pinned(3 * pixels))
            self.image_there = made.enter_context(cuda.buffer(3 * pixels))
            self.mask_here = made.enter_context(cuda.pinned(pixels))
            self.mask_there = made.enter_context(cuda.buffer(pixels))
            self.copied_in = made.enter_context(cuda.event())
            self.done = made.enter_context(cuda.event())
            self._prepare()
            made.callback(self._drop_graph)
            self._made = made.pop_all()
        self._is_first = True

    def _prepare(self) -> None:
        session = self.session
        with session.flavour.listening() as heard:  # no name for the context: a traceback would keep it
            if not self.context.set_input_shape("image", self.shape):
                raise EngineError(f"{session.name}: refuses the shape {_text(self.shape)}: {heard.reason}")
            if missing := self.context.infer_shapes():
                raise EngineError(f"{session.name}: the shape of {', '.join(missing)} is not known")
            if (found := tuple(self.context.get_tensor_shape("mask"))) != self.shape[:3]:
                raise EngineError(f"{session.name}: expected a mask {_text(self.shape[:3])}, found {_text(found)}")
            if session.scratch is not None:
                self.context.set_device_memory(int(session.scratch), session.scratch.nbytes)
            for name, buffer in (("image", self.image_there), ("mask", self.mask_there)):
                if not self.context.set_tensor_address(name, int(buffer)):
                    raise EngineError(f"{session.name}: refuses the address of {name}: {heard.reason}")

    def submit(self, images: NDArray[np.uint8]) -> None:
        """Start on `images`, at most as many as the lane has rows; rows without an image repeat the last one."""
        rows = self.image_here.array.reshape(self.shape)
        rows[: len(images)] = images
        rows[len(images) :] = images[-1]
        self._upload()
        if self._is_first:
            self._is_first = False
            self._first()
        else:
            self._compute()
        self._download()

    def collect(self, count: int) -> NDArray[np.uint8]:
        """Wait for the labels of the first `count` images: a view (count, H, W) that lasts until the next `submit`."""
        self.done.synchronise()
        return self.mask_here.array.reshape(self.shape[:3])[:count]

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
        shape = _text(self.shape)
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


def _collect(chunk: tuple[Lane, int, int], labels: NDArray[np.uint8]) -> None:
    lane, start, count = chunk
    labels[start : start + count] = lane.collect(count)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _ranges(flavour: Flavour, engine: Any, name: str) -> list[tuple[Shape, Shape]]:
    """Smallest and largest image of each profile; ModelError where the engine is not one of segdeploy's."""
    trt = flavour.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = {
        n: (
            "input" if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT else "output",
            engine.get_tensor_dtype(n).name,
            len(engine.get_tensor_shape(n)),
            engine.get_tensor_format(n) == trt.TensorFormat.LINEAR,
        )
        for n in names
    }
    if found != {"image": ("input", "UINT8", 4, True), "mask": ("output", "UINT8", 3, True)}:
        raise ModelError(f"{name}: expected an engine image uint8[N,H,W,3] -> mask uint8[N,H,W], found {found}")
    ranges = []
    for profile in range(engine.num_optimization_profiles):
        low, _, high = engine.get_tensor_profile_shape("image", profile)
        ranges.append((tuple(low), tuple(high)))
    return ranges


def _runtime_config(flavour: Flavour, engine: Any) -> Any:
    """Contexts that bring no scratch memory: all of them use the session's."""
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(flavour.module.ExecutionContextAllocationStrategy.USER_MANAGED)
    return config


def _let_it_capture(flavour: Flavour, config: Any) -> bool:
    strategy = getattr(flavour.module, "CudaGraphStrategy", None)
    if strategy is None or not hasattr(config, "cuda_graph_strategy"):
        return False
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
    return bool(config.cuda_graph_strategy == strategy.WHOLE_GRAPH_CAPTURE)  # a setter's False is lost in Python


def _context(session: Session) -> Any:
    with session.flavour.listening() as heard:
        context = session.engine.create_execution_context(session.config)
    if context is None:
        raise DeviceMemoryError(
            f"{session.name}: no room for an execution context: {heard.reason or session.cuda.memory_text(0)}; "
            "use a smaller batch or image, or free the GPU"
        )
    return context
