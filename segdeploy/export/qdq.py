"""Pairs of QuantizeLinear and DequantizeLinear in an ONNX graph: the numbers, and a writer that puts them in.

A runtime that knows the form runs what stands between such pairs on eight bits; any other computes the same in float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

    from numpy.typing import NDArray

_TINY = 2.0**-60  # a scale must not be 0, nor the product of two


@dataclass(frozen=True, slots=True)
class Scale:
    """real = (integer - zero) * step; `read` is the step for who reads, where that differs from the writer's."""

    step: float
    zero: int
    kind: type[np.uint8] | type[np.int8]
    read: float | None = None

    @property
    def largest(self) -> float:
        """The largest absolute value that the integers reach."""
        limits = np.iinfo(self.kind)
        return max(self.zero - int(limits.min), int(limits.max) - self.zero) * self.step


def asymmetric(low: float, high: float) -> Scale:
    """uint8 with the zero point that lets 0 be exact, for onnxruntime's CPU kernels."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, _TINY)
    return Scale(step, round(-low / step), np.uint8)


def symmetric(low: float, high: float) -> Scale:
    """int8 with zero point 0, for TensorRT."""
    return Scale(max(abs(low), abs(high), 127 * _TINY) / 127, 0, np.int8)


def channel_limits(weight: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """The largest absolute weight of each channel."""
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    limits: NDArray[np.float64] = np.abs(weight.astype(np.float64)).max(axis=others)
    return limits


def weight_steps(
    weight: NDArray[np.floating], axis: int, least: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """The step of each channel, so that its largest weight is 127, but not below `least`; 1 where all are 0."""
    steps = np.maximum(channel_limits(weight, axis) / 127, least)
    return np.where(steps > 0, np.maximum(steps, _TINY), 1.0)


def weighted(model: onnx.ModelProto, operators: Set[str]) -> list[str]:
    """The names of the nodes that multiply by a constant weight: all that is worth eight bits by itself."""
    constants = {c.name for c in model.graph.initializer}
    return [
        n.name
        for n in model.graph.node
        if n.op_type in operators and n.input[0] not in constants and constants.issuperset(n.input[1:])
    ]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


class Writer:
    """Takes the nodes of a graph in order and gives a new graph, with the pairs that are asked for on the way."""

    def __init__(self, model: onnx.ModelProto, scales: Mapping[str, Scale]) -> None:
        self.source = model
        self.scales = scales
        self.weights = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.outputs = {v.name for v in model.graph.output}
        tensors = {v.name: v.type.tensor_type for v in model.graph.value_info}
        self.types = {name: tensor.elem_type for name, tensor in tensors.items()}
        self.shapes = {name: [d.dim_value for d in tensor.shape.dim] for name, tensor in tensors.items()}
        """A side that is free reads as 0."""
        self.pairs: dict[str, str] = {}
        """Tensor -> the same, after its pair."""
        self.used: dict[str, Scale] = {}
        """The scale of each tensor that has a pair."""
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """The node that alone reads a tensor; None for several, or where the graph gives it out."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def add(self, node: onnx.NodeProto, inputs: Iterable[str]) -> None:
        """A copy of a node, with other inputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(inputs)
        self.nodes.append(copy)

    def make(self, operator: str, name: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A new node; gives its output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """A constant of the new graph."""
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def pair(self, name: str, scale: Scale | None = None) -> str:
        """The tensor through eight bits and back; made once, whoever asks. `scale`: another than the calibrated one."""
        if name not in self.pairs:
            scale = scale or self.scales[name]
            float_type = self._float(name)
            inputs = [
                self.constant(f"{name}.scale", np.array(scale.step, float_type)),
                self.constant(f"{name}.zero", np.array(scale.zero, scale.kind)),
            ]
            quantized = self.make("QuantizeLinear", f"{name}.quantize", [name, *inputs], f"{name}.quantized")
            if scale.read is not None:
                inputs[0] = self.constant(f"{name}.scale_read", np.array(scale.read, float_type))
            self.pairs[name] = self.make(
                "DequantizeLinear", f"{name}.dequantize", [quantized, *inputs], f"{name}.dequantized"
            )
            self.used[name] = scale
        return self.pairs[name]

    def pass_on(self, name: str, scale: Scale) -> None:
        """`name` has no float form any more: its integers, `name`.quantized, were made of others of this scale."""
        inputs = [
            self.constant(f"{name}.scale", np.array(scale.step if scale.read is None else scale.read, np.float32)),
            self.constant(f"{name}.zero", np.array(scale.zero, scale.kind)),
        ]
        made = [f"{name}.quantized", *inputs]
        self.pairs[name] = self.make("DequantizeLinear", f"{name}.dequantize", made, f"{name}.dequantized")
        self.used[name] = scale

    def weight(
        self, name: str, axis: int, value: NDArray[np.floating] | None = None, least: NDArray[np.float64] | None = None
    ) -> tuple[str, NDArray[np.float64]]:
        """A weight as int8 and a scale for each channel of `axis`; gives the float tensor's name, and the steps.

        `value` stands for the weight where it is not as in the source; no step is below that of `least`.
        """
        value = self.weights[name] if value is None else value
        float_type = np.float16 if value.dtype == np.float16 else np.float32
        smallest = 0.0 if least is None else least
        steps = np.maximum(weight_steps(value, axis, smallest), np.finfo(float_type).tiny)
        steps = steps.astype(float_type).astype(np.float64)  # what the graph will hold
        shape = [1] * value.ndim
        shape[axis] = -1
        integers = np.clip(np.rint(value / steps.reshape(shape)), -127, 127).astype(np.int8)
        unique = name if f"{name}.quantized" not in self._constants else f"{name}.{len(self._constants)}"
        inputs = [
            self.constant(f"{unique}.quantized", integers),
            self.constant(f"{unique}.scale", steps.astype(float_type)),
            self.constant(f"{unique}.zero", np.zeros(len(steps), np.int8)),
        ]
        made = self.make("DequantizeLinear", f"{unique}.dequantize", inputs, f"{unique}.dequantized", axis=axis)
        return made, steps

    def bias(self, name: str, value: NDArray[np.floating], steps: NDArray[np.float64]) -> str:
        """A bias as int32 in the steps of what it is added to: onnxruntime's integer convolution asks for it."""
        integers = np.rint(value.astype(np.float64) / steps)
        unique = name if f"{name}.quantized" not in self._constants else f"{name}.{len(self._constants)}"
        inputs = [
            self.constant(f"{unique}.quantized", np.clip(integers, -(2**31), 2**31 - 1).astype(np.int32)),
            self.constant(f"{unique}.scale", steps.astype(np.float32)),
            self.constant(f"{unique}.zero", np.zeros(len(steps), np.int32)),
        ]
        return self.make("DequantizeLinear", f"{unique}.dequantize", inputs, f"{unique}.dequantized", axis=0)

    def finish(self) -> onnx.ModelProto:
        """The new graph: interface, metadata and opset as in the source, without what nothing reads."""
        model = onnx.ModelProto()
        model.CopyFrom(self.source)
        graph = model.graph
        del graph.node[:]
        del graph.value_info[:]
        read = set(self.outputs)
        for node in reversed(self.nodes):  # sorted, as ONNX demands
            if read.intersection(node.output):
                read.update(node.input)
        graph.node.extend(node for node in self.nodes if read.intersection(node.output))
        kept = [c for c in (*graph.initializer, *self._constants.values()) if c.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _float(self, name: str) -> type[np.floating[Any]]:
        return np.float16 if self.types.get(name) == onnx.TensorProto.FLOAT16 else np.float32
