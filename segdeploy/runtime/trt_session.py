"""A deserialised engine on the device, and a batch's way through it.

A batch that is larger than the engine allows goes in chunks. Two lanes take turns: while one computes, the next
chunk is copied in on a stream of its own. A lane is filled again only after its labels were collected, so the host
never overtakes the device; all computing is on one stream, so every context can use the same scratch memory.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.errors import DataError, ModelError
from segdeploy.runtime.trt_lane import Lane, shape_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segdeploy.runtime.cuda import Cuda
    from segdeploy.runtime.trt import Flavour
    from segdeploy.runtime.trt_lane import Shape

KEPT_SHAPES = 8
"""Shapes whose contexts, buffers and graphs are kept; the one that was used longest ago goes first."""


class Session:
    """Streams, scratch memory and lanes of one engine; everything on the device goes with `close`."""

    def __init__(self, flavour: Flavour, engine: Any, cuda: Cuda, name: str, *, graphs: bool = True) -> None:
        self.flavour, self.engine, self.cuda, self.name, self.graphs = flavour, engine, cuda, name, graphs
        self.ranges = _ranges(flavour, engine, name)
        self.config = _runtime_config(flavour, engine)
        # TensorRT for RTX captures on its own, and knows best when it compiles kernels in between.
        self.captures_itself = _let_it_capture(flavour, self.config) if graphs else False
        self.seconds = 0.0
        """What the device computed for the last `run`, without the copies."""
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
        self.seconds = 0.0
        under_way: list[tuple[Lane, int, int]] = []
        try:
            start = 0
            for turn, (count, rows) in enumerate(sizes):
                if len(under_way) == 2:
                    self._collect(under_way.pop(0), labels)
                lane = self._lane(profile, (rows, *image.shape[1:]), turn % 2)
                lane.submit(image[start : start + count])
                under_way.append((lane, start, count))
                start += count
            while under_way:
                self._collect(under_way.pop(0), labels)
        except BaseException:
            self._give_up()
            raise
        return labels

    def _collect(self, chunk: tuple[Lane, int, int], labels: NDArray[np.uint8]) -> None:
        lane, start, count = chunk
        labels[start : start + count] = lane.collect(count)
        self.seconds += lane.seconds

    def _chunks(self, shape: Shape) -> tuple[int, list[tuple[int, int]]]:
        """The profile, and for each chunk the images in it and the rows that the engine computes."""
        for profile, (low, high) in enumerate(self.ranges):
            if len(shape) == len(low) and all(
                a <= s <= b for a, s, b in zip(low[1:], shape[1:], high[1:], strict=True)
            ):
                most, least = high[0], low[0]
                counts = [min(most, shape[0] - i) for i in range(0, shape[0], most)]
                return profile, [(count, max(count, least)) for count in counts]
        allowed = "; or ".join(f"{shape_text(low[1:])} to {shape_text(high[1:])}" for low, high in self.ranges)
        raise DataError(
            f"{self.name}: the engine takes images of (height, width, 3) {allowed}, found {shape_text(shape[1:])}; "
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
