"""Which values the tensors of a graph take on calibration images, and the range that eight bits are given of them.

onnxruntime's calibrators keep all tensors of all images in memory, and calibrate for one graph at a time; here each
image is counted and forgotten, and two graphs are made from one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import onnx

from segdeploy.errors import DataError, ExportError
from segdeploy.export.graph import session_of, without_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)

_BINS = 4096
_LEVELS = 128  # of the absolute value, in eight bits with a sign
_STEP = 8
_CLIPPED = 1e-4
_NOTHING = 1e-30
_AT_ONCE = 2**28
"""Elements that one run of the graph hands out: 1 GiB."""


class Histogram:
    """How often a tensor takes which values: counts of equal bins over [-limit, limit], and the extremes themselves."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.limit = 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: NDArray[np.floating]) -> None:
        """Count `values`, of any shape; the limit is a power of two and doubles as need be, so that no count moves."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = float(np.minimum(self.low, low)), float(np.maximum(self.high, high))  # NaN stays
        largest = max(-low, high)
        if not np.isfinite(largest):
            return  # `collect` says so
        if largest < _NOTHING:
            self.counts[_BINS // 2] += values.size
            return
        if self.limit == 0:
            self.limit = float(2.0 ** np.ceil(np.log2(largest)))
        while self.limit < largest:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, _BINS // 4)
            self.limit *= 2
        flat = values.ravel().astype(np.promote_types(values.dtype, np.float32), copy=False)
        bins = (flat * (_BINS / 2 / self.limit) + _BINS / 2).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)

    def range(self, method: Method) -> tuple[float, float]:
        """The least and the greatest value that is to be told apart; what lies beyond is clipped.

        Args:
            method: "minmax": all values. "percentile": all but 0.01 %, half of them on each side. "entropy": the
                absolute value at which rounding and clipping together lose the least information (S. Migacz, "8-bit
                inference with TensorRT", GTC 2017).
        """
        width = 2 * self.limit / _BINS
        if not width or method == "minmax":
            return self.low, self.high
        if method == "entropy":
            highest = _least_divergence(self.counts[_BINS // 2 :] + self.counts[: _BINS // 2][::-1]) * width
            lowest = -highest
        else:
            highest = _quantile(self.counts) * width - self.limit
            lowest = self.limit - _quantile(self.counts[::-1]) * width
        return max(self.low, lowest), min(self.high, highest)


def _quantile(counts: NDArray[np.int64]) -> int:
    """How many bins, from the first on, hold all but half of what may be clipped."""
    return int(np.searchsorted(np.cumsum(counts), (1 - _CLIPPED / 2) * counts.sum())) + 1


def _least_divergence(counts: NDArray[np.int64]) -> int:
    """After how many bins to clip, so that 128 levels differ least (Kullback-Leibler) from the counts."""
    best, found = np.inf, len(counts)
    last = int(np.flatnonzero(counts)[-1]) + 1
    if last <= _LEVELS:
        return last
    for size in [*range(_LEVELS, last, _STEP), last]:
        kept = counts[:size].astype(np.float64)
        clipped = kept.copy()
        clipped[-1] += counts[size:].sum()
        level = np.arange(size) * _LEVELS // size
        filled = kept > 0
        share = np.bincount(level, kept, _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1)
        rounded = np.where(filled, share[level], 0)
        if not rounded.any():
            continue
        p, q = clipped / clipped.sum(), rounded / rounded.sum()
        at = p > 0
        divergence = float((p[at] * np.log(p[at] / np.maximum(q[at], 1e-9))).sum())
        if divergence < best:
            best, found = divergence, size
    return found


def collect(
    model: onnx.ModelProto,
    names: Sequence[str],
    images: Sequence[NDArray[np.uint8]],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Histogram]:
    """Run the graph in its own precision on each image and count the values of the tensors `names`.

    `progress` is called with (done, total) after each image.

    Raises:
        DataError: no images.
        ExportError: a tensor with a value that is infinite or no number.
    """
    if not len(images):
        raise DataError("calibration: expected at least one image, found none")
    found = {name: Histogram() for name in names}
    sessions: list[tuple[list[str], ort.InferenceSession]] = []
    for done, image in enumerate(images, start=1):
        if not sessions:
            sessions = [(part, session_of(model, part, fast=True)) for part in in_parts(model, names, image.shape)]
        for part, session in sessions:
            for name, value in zip(part, session.run(part, {"image": image}), strict=True):
                found[name].add(value)
        if progress is not None:
            progress(done, len(images))
    for name, histogram in found.items():
        if not (np.isfinite(histogram.low) and np.isfinite(histogram.high)):
            raise ExportError(
                f"{name}: takes values that are not finite on the calibration images, which INT8 cannot hold"
            )
    return found


def in_parts(model: onnx.ModelProto, names: Sequence[str], image: Sequence[int]) -> Iterator[list[str]]:
    """The names in groups whose tensors fit into memory together, for an image of the shape `image`."""
    shapes = _shapes(model, image)
    part: list[str] = []
    elements = 0
    for name in names:
        size = int(np.prod(shapes.get(name, [])))
        if part and elements + size > _AT_ONCE:
            yield part
            part, elements = [], 0
        part.append(name)
        elements += size
    if part:
        yield part


def _shapes(model: onnx.ModelProto, image: Sequence[int]) -> dict[str, list[int]]:
    """Of each tensor; a side that does not follow from the image's counts as the longest of it."""
    sized = without_weights(model)
    del sized.graph.value_info[:]
    for dim, side in zip(sized.graph.input[0].type.tensor_type.shape.dim, image, strict=True):
        dim.dim_value = side
    found = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph.value_info
    return {v.name: [d.dim_value or max(image) for d in v.type.tensor_type.shape.dim] for v in found}
