"""A typed graph run on the CPU with the rounding and the range that FP16 has on a GPU.

onnxruntime's CPU kernels compute FP16 operators in FP32, softmax and normalisations from end to end, so an overflow
inside them does not show. Here every FP16 tensor is held in FP32 and rounded to FP16 (to nearest, beyond 65504 to
infinity) as it is written, and operators of several steps are spelled out with each step rounded.

What is modelled: rounding and range of every tensor; that sums (ReduceSum, ReduceMean, ReduceL2, GlobalAveragePool and
those inside softmax and normalisations) must fit FP16. What is not: the digits that a sum in FP16 loses while it is
added up, partial sums of matrix products and convolutions (added up in FP32 here, as tensor cores mostly do), fused
kernels that round less often, and flushing of subnormal numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from segdeploy.export.graph import FLOAT, HALF, GraphView, Names, session_of
from segdeploy.runtime.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

# They give values that they were given.
_MOVES = {"Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "Neg", "Pad"}
_MOVES |= {"ReduceMax", "ReduceMin", "Relu", "Reshape", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze"}
_MOVES |= {"Tile", "Transpose", "Unsqueeze", "Where"}


def open_half(model: onnx.ModelProto, outputs: Sequence[str] | None = None) -> ort.InferenceSession:
    """A session of `rounded(model)`; `outputs` in place of the graph's own."""
    return session_of(rounded(model), outputs)


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in FP32, each FP16 tensor under its own name and rounded to FP16; no operator of it computes in FP16.

    Inputs and outputs that were FP16 are FP32 that FP16 can hold.

    Raises:
        ExportError: see `GraphView`.
    """
    view = GraphView(model)
    rounder = _Rounder(view)
    for node in view.nodes:
        rounder.add(node)
    graph = view.model.graph
    del graph.node[:], graph.value_info[:]
    graph.node.extend(rounder.nodes)
    for constant in graph.initializer:
        if constant.data_type == HALF:
            constant.CopyFrom(numpy_helper.from_array(view.constants[constant.name].astype(np.float32), constant.name))
    graph.initializer.extend(rounder.constants)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type = FLOAT
    return view.model


class _Rounder:
    def __init__(self, view: GraphView) -> None:
        self.view = view
        self.names = Names(view.model)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        types = self.view.types
        halves = [name for name in node.output if types.get(name) == HALF]
        if not halves:
            self.nodes.append(node)
            return
        if expand := _STEPS.get(node.op_type):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            result = expand(self, [*node.input], attributes, self._rank(node.input[0]))
            self.nodes.append(onnx.helper.make_node("Identity", [result], [node.output[0]], name=node.name))
            return
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        _to_float(plain)
        self.nodes.append(plain)
        if node.op_type not in _MOVES:
            for i, name in enumerate(node.output):
                if name in halves:
                    plain.output[i] = self.names.new(f"{name}.exact")
                    self._round(plain.output[i], name)

    def step(self, operator: str, *inputs: str, exact: bool = False, **attributes: Any) -> str:
        """One step of an operator that is spelled out, its result rounded unless `exact`."""
        target = self.names.new(f"half.{operator}")
        self.nodes.append(onnx.helper.make_node(operator, inputs, [target], name=f"node_{target}", **attributes))
        if exact:
            return target
        result = self.names.new(f"{target}.rounded")
        self._round(target, result)
        return result

    def number(self, value: Any) -> str:
        """A constant, floats rounded to FP16."""
        array = np.asarray(value)
        name = self.names.new("half.number")
        if array.dtype.kind == "f":
            array = array.astype(np.float16).astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _round(self, source: str, target: str) -> None:
        half = self.names.new(f"{target}.half")
        self.nodes += [self.names.cast(source, half, HALF), self.names.cast(half, target, FLOAT)]

    def _rank(self, name: str) -> int:
        return self.view.ranks.get(name, 4)


def _to_float(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            attribute.i = FLOAT
        if attribute.HasField("t") and attribute.t.data_type == HALF:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))


Attributes = dict[str, Any]


def _sum(r: _Rounder, x: str, axes: str, attributes: Attributes, mean: bool = False) -> str:
    keep = {k: attributes[k] for k in ("keepdims", "noop_with_empty_axes") if k in attributes}
    given = (x, axes) if axes else (x,)
    total = r.step("ReduceSum", *given, **keep)
    if not mean:
        return total
    # The digits of the mean, and the infinity of the sum that it is made of.
    average = r.step("ReduceMean", *given, **keep)
    return r.step("Where", r.step("IsInf", total, exact=True), total, average, exact=True)


def _reduction(before: str | None, after: str | None, mean: bool = False) -> Callable[..., str]:
    def expand(r: _Rounder, inputs: list[str], attributes: Attributes, rank: int) -> str:
        x = inputs[0]
        if before is not None:
            x = r.step("Mul", x, x) if before == "Square" else r.step(before, x)
        total = _sum(r, x, inputs[1] if len(inputs) > 1 else "", attributes, mean)
        return total if after is None else r.step(after, total)

    return expand


def _global_average_pool(r: _Rounder, inputs: list[str], attributes: Attributes, rank: int) -> str:
    return _sum(r, inputs[0], r.number(np.arange(2, rank)), {}, mean=True)


def _softmax(r: _Rounder, inputs: list[str], attributes: Attributes, rank: int) -> str:
    axis = r.number(np.array([attributes.get("axis", -1)]))
    shifted = r.step("Sub", inputs[0], r.step("ReduceMax", inputs[0], axis))
    powers = r.step("Exp", shifted)
    return r.step("Div", powers, _sum(r, powers, axis, {}))


def _standardise(r: _Rounder, x: str, axes: str, epsilon: float) -> str:
    off = r.step("Sub", x, _sum(r, x, axes, {}, mean=True))
    variance = _sum(r, r.step("Mul", off, off), axes, {}, mean=True)
    return r.step("Div", off, r.step("Sqrt", r.step("Add", variance, r.number(epsilon))))


def _layer_norm(r: _Rounder, inputs: list[str], attributes: Attributes, rank: int) -> str:
    first = attributes.get("axis", -1) % rank
    x = _standardise(r, inputs[0], r.number(np.arange(first, rank)), attributes.get("epsilon", 1e-5))
    x = r.step("Mul", x, inputs[1])
    return r.step("Add", x, inputs[2]) if len(inputs) > 2 and inputs[2] else x


def _instance_norm(r: _Rounder, inputs: list[str], attributes: Attributes, rank: int) -> str:
    x = _standardise(r, inputs[0], r.number(np.arange(2, rank)), attributes.get("epsilon", 1e-5))
    shape = r.number(np.array([1, -1, *[1] * (rank - 2)]))
    scale, shift = (r.step("Reshape", name, shape, exact=True) for name in inputs[1:3])
    return r.step("Add", r.step("Mul", x, scale), shift)


_STEPS: dict[str, Callable[[_Rounder, list[str], Attributes, int], str]] = {
    "GlobalAveragePool": _global_average_pool,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "ReduceL1": _reduction("Abs", None),
    "ReduceL2": _reduction("Square", "Sqrt"),
    "ReduceLogSumExp": _reduction("Exp", "Log"),
    "ReduceMean": _reduction(None, None, mean=True),
    "ReduceSum": _reduction(None, None),
    "ReduceSumSquare": _reduction("Square", None),
    "Softmax": _softmax,
}


def run_half(model: onnx.ModelProto, image: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """What the graph gives for `image` (N, H, W, 3), computed as `rounded` says."""
    session = open_half(model)
    results: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: image})
    return results


class HalfRunner(Runner):
    """A segdeploy graph, run as `rounded` says."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session = open_half(model)

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        mask: NDArray[np.uint8] = self._session.run(["mask"], {"image": image})[0]
        return mask

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return {"backend": "onnxruntime", "provider": "CPU, each result rounded to FP16", "precision": "fp16"}
