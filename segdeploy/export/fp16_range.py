"""Which values of a graph leave FP16's range, found by running it in FP32 with every tensor exposed.

FP16 ends at 65504; onnxruntime's CPU kernels compute FP16 in FP32, so running an FP16 graph there would show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

SAFE = 1e4
"""A sixth of FP16's range: trained weights and other images reach farther than a probe."""

# They stay in FP32 when the rest becomes FP16.
_ALWAYS_FP32 = {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "Softmax"}
_SQUARED = {"ReduceL2", "ReduceSumSquare"}
_SUMS = {"GlobalAveragePool", "ReduceL1", "ReduceMean", "ReduceSum", *_SQUARED}


@dataclass(frozen=True, slots=True)
class Excess:
    """A value beyond the safe range: the node, its operator, what the value is, and the value."""

    node: str
    operator: str
    what: str
    value: float

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.what} {self.value:.3g}"


@dataclass(frozen=True, slots=True)
class Range:
    """What a probe found: what is beyond SAFE, largest first; reductions whose sums are; the largest value of all."""

    beyond: tuple[Excess, ...]
    sums: tuple[Excess, ...]
    largest: float


def probe(graph: bytes, image: NDArray[np.uint8], keep_fp32: Sequence[str] = ()) -> Range:
    """Run the graph on `image` (N, H, W, 3) and look at weights and at the output of each node.

    Nodes whose names match a pattern of `keep_fp32` (shell style), and those that always stay in FP32, may have any
    value. The sum that a reduction adds up (of squares, for L2), bounded by the sum of its input's absolute values, is
    told apart: it grows with the image, and a large reduction stays in FP32 whoever wrote it.
    """
    model = onnx.load_from_string(graph)
    weights = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    values = weights | _run(model, image)
    found: list[Excess] = []
    sums: list[Excess] = []
    largest = 0.0
    for node in model.graph.node:
        if node.op_type in _ALWAYS_FP32 or any(fnmatch(node.name, pattern) for pattern in keep_fp32):
            continue
        for what, value in _extents(node, values, weights):
            largest = max(largest, value)
            if value > SAFE:
                found.append(Excess(node.name, node.op_type, what, value))
        if node.op_type in _SUMS and _is_float(values[node.input[0]]) and (bound := _sum_bound(node, values)) > SAFE:
            sums.append(Excess(node.name, node.op_type, "sum", bound))
    return Range(tuple(sorted(found, key=lambda e: -e.value)), tuple(sums), largest)


def _extents(
    node: onnx.NodeProto, values: dict[str, NDArray[np.generic]], weights: dict[str, NDArray[np.generic]]
) -> Iterator[tuple[str, float]]:
    for name in node.input:
        if name in weights and _is_float(weights[name]):
            yield f"weight {name}", _largest(weights[name])
    for name in node.output:
        if name in values and _is_float(values[name]):
            yield "output", _largest(values[name])


def _sum_bound(node: onnx.NodeProto, values: dict[str, NDArray[np.generic]]) -> float:
    x = np.abs(values[node.input[0]].astype(np.float64))
    x = x * x if node.op_type in _SQUARED else x
    axes: tuple[int, ...] | None = None
    if node.op_type == "GlobalAveragePool":
        axes = tuple(range(2, x.ndim))
    elif len(node.input) > 1 and node.input[1]:
        axes = tuple(int(axis) for axis in values[node.input[1]].ravel())
    return _largest(x.sum(axes))


def _run(model: onnx.ModelProto, image: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    known = {v.name for v in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    session = ort.InferenceSession(open_model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"image": image}), strict=True)) | {"image": image}


def _is_float(x: NDArray[np.generic]) -> bool:
    return bool(np.issubdtype(x.dtype, np.floating))


def _largest(x: NDArray[np.generic]) -> float:
    # Infinity stays infinity in FP16 (masks of attention); what overflows is finite before.
    return float(np.abs(x).max(initial=0, where=np.isfinite(x)))
