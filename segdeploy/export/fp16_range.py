"""Which values of a graph leave FP16's range, found by running it in FP32 and measuring every tensor on the way.

FP16 ends at 65504 and its normal numbers begin at 6.1e-5. onnxruntime's CPU kernels compute FP16 in FP32, so running
an FP16 graph there would show nothing. The nodes that measure stand in the graph itself, and a run gives one number
for each tensor: no more memory is needed than to run the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from segdeploy.errors import ExportError, first_line
from segdeploy.export.graph import FLOAT, PRODUCTS, GraphView, is_float, session_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

SAFE = 1e4
"""A sixth of FP16's range: trained weights and other images reach farther than a probe."""
LARGEST = 65504.0
"""FP16's largest number."""
SMALLEST = 2.0**-14
"""FP16's smallest normal number; below it digits are lost, below 6e-8 all of them."""

ALWAYS_FP32 = {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "Softmax"}
"""They stay in FP32 when the rest becomes FP16."""
_SQUARED = {"ReduceL2", "ReduceSumSquare"}
SUMS = {"GlobalAveragePool", "ReduceL1", "ReduceMean", "ReduceSum", *_SQUARED}
"""Reductions that add up."""
DIVISORS = {"Div": 1, "Reciprocal": 0, "Sqrt": 0, "Log": 0}
"""Operators that a small value harms, and which of their inputs it is."""


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


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a graph reaches on some images. Infinities (masks of attention) and NaN are left out.

    `largest`: by tensor, the largest absolute value. The others are by the first output of a node.
    `sums`: of a reduction, the largest sum of absolute values (of squares, for L2) that it adds up.
    `products`: of a matrix product, the largest sum of absolute products, which no partial sum exceeds.
    `smallest`: of a divisor, or of what a root or logarithm is taken of, the smallest absolute value that is not 0.
    """

    largest: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    products: dict[str, float] = field(default_factory=dict)
    smallest: dict[str, float] = field(default_factory=dict)


def measure(view: GraphView, images: Iterable[NDArray[np.uint8]]) -> Ranges:
    """Run the FP32 graph on each of `images` (N, H, W, 3), all at sizes that the graph takes.

    Raises:
        ExportError: no images, or onnxruntime cannot run the graph on them.
    """
    meter = _Meter(view)
    session = session_of(meter.model)
    name = session.get_inputs()[0].name
    ranges = Ranges()
    ranges.largest.update((c, _largest(x)) for c, x in view.constants.items() if is_float(x))
    count = 0
    for count, image in enumerate(images, 1):
        try:
            found = session.run(None, {name: image})
        except Exception as e:  # onnxruntime's errors have no common base of their own
            raise ExportError(f"onnxruntime cannot run the graph on image {count}: {first_line(e)[:300]}") from e
        for (table, key), value in zip(meter.read, found, strict=True):
            known: dict[str, float] = getattr(ranges, table)
            best = min if table == "smallest" else max
            known[key] = best(known.get(key, float(value)), float(value))
    if not count:
        raise ExportError("the FP16 range is measured on images, and there are none")
    return ranges


def probe(graph: bytes, image: NDArray[np.uint8], keep_fp32: Sequence[str] = ()) -> Range:
    """Run the graph on `image` (N, H, W, 3) and look at weights and at the output of each node.

    Nodes whose names match a pattern of `keep_fp32` (shell style), and those that always stay in FP32, may have any
    value. The sum that a reduction adds up (of squares, for L2), bounded by the sum of its input's absolute values, is
    told apart: it grows with the image, and a large reduction stays in FP32 whoever wrote it.
    """
    view = GraphView(onnx.load_from_string(graph))
    ranges = measure(view, [image])
    found: list[Excess] = []
    sums: list[Excess] = []
    largest = 0.0
    for node in view.nodes:
        if node.op_type in ALWAYS_FP32 or any(fnmatch(node.name, pattern) for pattern in keep_fp32):
            continue
        extents = [
            (f"weight {n}", ranges.largest[n]) for n in node.input if n in view.constants.keys() & ranges.largest
        ]
        extents += [("output", ranges.largest[name]) for name in node.output if name in ranges.largest]
        largest = max([largest, *(value for _, value in extents)])
        found += [Excess(node.name, node.op_type, what, value) for what, value in extents if value > SAFE]
        if (bound := ranges.sums.get(node.output[0], 0)) > SAFE:
            sums.append(Excess(node.name, node.op_type, "sum", bound))
    return Range(tuple(sorted(found, key=lambda e: -e.value)), tuple(sums), largest)


class _Meter:
    """The model with nodes that measure, which give scalars; `read` says what each output is: table and key."""

    def __init__(self, view: GraphView) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(view.model)
        del self.model.graph.output[:]
        del self.model.graph.node[:]
        self.read: list[tuple[str, str]] = []
        self._view = view
        self._magnitudes: dict[str, str] = {}
        self._constant("zero", np.float32(0))
        self._constant("infinity", np.float32(np.inf))
        for node in view.nodes:
            # Beside the node that it measures, so that the tensor need not live longer.
            self.model.graph.node.append(node)
            self._measure(node)

    def _measure(self, node: onnx.NodeProto) -> None:
        types, key = self._view.types, node.output[0]
        for name in node.output:
            if types.get(name) == FLOAT:
                self._give("largest", name, self._reduce("ReduceMax", self._magnitude(name)))
        if not node.input or types.get(node.input[0]) != FLOAT:
            return
        if node.op_type in SUMS:
            self._give("sums", key, self._sum(node))
        if node.op_type in PRODUCTS:
            self._give("products", key, self._products(node))
        if (at := DIVISORS.get(node.op_type)) is not None:
            size = self._magnitude(node.input[at])
            positive = self._add("Greater", [size, self._name("zero")])
            above = self._add("Where", [positive, size, self._name("infinity")])
            self._give("smallest", key, self._reduce("ReduceMin", above))

    def _sum(self, node: onnx.NodeProto) -> str:
        x = self._magnitude(node.input[0])
        if node.op_type in _SQUARED:
            x = self._add("Mul", [x, x])
        axes = node.input[1] if len(node.input) > 1 else ""
        if node.op_type == "GlobalAveragePool":
            axes = self._constant(f"{node.output[0]}.axes", np.arange(2, self._view.ranks.get(node.input[0], 4)))
        elif any(a.name == "noop_with_empty_axes" and a.i for a in node.attribute) and not axes:
            return self._reduce("ReduceMax", x)
        return self._reduce("ReduceMax", self._add("ReduceSum", [x, axes] if axes else [x]))

    def _products(self, node: onnx.NodeProto) -> str:
        """The same product of absolute values, without the bias, which is added once."""
        inputs = list(node.input) if node.op_type == "Einsum" else list(node.input[:2])
        twin = self._add(node.op_type, [self._magnitude(name) for name in inputs])
        self.model.graph.node[-1].attribute.extend(node.attribute)
        return self._reduce("ReduceMax", self._magnitude(twin))

    def _magnitude(self, name: str) -> str:
        """The absolute values, 0 in place of infinities and NaN, neither of which is below infinity."""
        if name not in self._magnitudes:
            size = self._add("Abs", [name])
            finite = self._add("Less", [size, self._name("infinity")])
            self._magnitudes[name] = self._add("Where", [finite, size, self._name("zero")])
        return self._magnitudes[name]

    def _reduce(self, operator: str, name: str) -> str:
        target = self._add(operator, [name])
        self.model.graph.node[-1].attribute.append(onnx.helper.make_attribute("keepdims", 0))
        return target

    def _give(self, table: str, key: str, name: str) -> None:
        self.read.append((table, key))
        self.model.graph.output.append(onnx.ValueInfoProto(name=name))

    def _add(self, operator: str, inputs: list[str]) -> str:
        target = self._name(str(len(self.model.graph.node)))
        self.model.graph.node.append(onnx.helper.make_node(operator, inputs, [target], name=target))
        return target

    def _constant(self, wish: str, value: NDArray[Any] | np.generic) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), self._name(wish)))
        return self._name(wish)

    @staticmethod
    def _name(word: str) -> str:
        return f"segdeploy.measure/{word}"


def _largest(x: NDArray[np.generic]) -> float:
    # Infinity stays infinity in FP16 (masks of attention); what overflows is finite before.
    return float(np.abs(x).max(initial=0, where=np.isfinite(x)))
