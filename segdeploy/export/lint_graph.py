"""An ONNX graph as the rows of the lint read it: nodes with their types, shapes, constants and source layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

LAYER_KEY = "segdeploy.layer"
"""Key of a node's metadata: the path of the torch module that it was traced from."""
STANDARD = ("", "ai.onnx")
CONTAINER = -1
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor: its ONNX element type (0: unknown) and shape (None: unknown, -1: a free side).

    The type of what is no tensor, a sequence or an optional, is CONTAINER.
    """

    type: int = 0
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Node:
    """A node and the tensors that it touches."""

    proto: onnx.NodeProto
    graph: Graph = field(repr=False)

    @property
    def operator(self) -> str:
        """Its operator, with the domain in front where that is not ONNX's own."""
        domain = self.proto.domain
        return self.proto.op_type if domain in STANDARD else f"{domain}::{self.proto.op_type}"

    @property
    def layer(self) -> str:
        """The torch module that it was traced from; empty where the file does not say."""
        return layer_of(self.proto)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attribute values by name, text as `str`."""
        values = {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}
        return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in values.items()}

    def input(self, i: int) -> str:
        """The name of input `i`; empty where it is left out."""
        return self.proto.input[i] if i < len(self.proto.input) else ""

    def value(self, i: int) -> Value:
        """Type and shape of input `i`."""
        return self.graph.values.get(self.input(i), Value())

    def result(self, i: int = 0) -> Value:
        """Type and shape of output `i`."""
        return self.graph.values.get(self.proto.output[i], Value()) if i < len(self.proto.output) else Value()

    def outputs(self) -> int:
        """How many outputs are asked for."""
        return sum(bool(name) for name in self.proto.output)

    def is_constant(self, i: int) -> bool:
        """Whether input `i` is left out, an initializer, or a Constant node's: what parsers call a constant."""
        return not self.input(i) or self.input(i) in self.graph.constants

    def constant(self, i: int) -> NDArray[Any] | None:
        """The value of input `i` where it is a constant that NumPy can hold."""
        tensor = self.graph.constants.get(self.input(i))
        try:
            return numpy_helper.to_array(tensor) if tensor is not None else None
        except (ValueError, TypeError, OSError):  # weights in a file beside the model
            return None


class Graph:
    """A model's nodes, those of branches and loop bodies among them, local functions inlined."""

    def __init__(self, model: onnx.ModelProto) -> None:
        if model.functions:
            model = inliner.inline_local_functions(model)
        self.opset = next((o.version for o in model.opset_import if o.domain in STANDARD), 0)
        self.constants: dict[str, onnx.TensorProto] = {}
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        graph = onnx.shape_inference.infer_shapes(model).graph
        self.inputs = {v.name for v in graph.input}
        self.outputs = {v.name for v in graph.output}
        self._read(graph)
        own = [onnx.NodeProto(op_type="input", name=v.name, output=[v.name]) for v in graph.input]
        own.append(onnx.NodeProto(op_type="opset", name=f"opset {self.opset}"))
        self.own = [Node(proto, self) for proto in own]
        """The graph's inputs and its opset, as if they were nodes, so that a row can be about them."""
        self.from_shapes = {*self.constants, "", *(v.name for v in graph.input if _is_shape(self.values[v.name]))}
        """Tensors that constants, shapes, and inputs like shapes alone decide: arithmetic on the host."""
        for node in self.nodes:  # sorted, as ONNX demands
            if node.proto.op_type in ("Shape", "Size", "Constant") or self.from_shapes.issuperset(node.proto.input):
                self.from_shapes.update(node.proto.output)
        self.readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.proto.input:
                self.readers.setdefault(name, []).append(node)

    def _read(self, graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.value_info, *graph.output):
            self.values[value.name] = _value(value)
        for tensor in graph.initializer:
            self.constants[tensor.name] = tensor
            self.values[tensor.name] = Value(tensor.data_type, tuple(tensor.dims))
        for proto in graph.node:
            node = Node(proto, self)
            self.nodes.append(node)
            if proto.op_type == "Constant" and proto.domain in STANDARD and proto.output:
                self._constant(proto.output[0], node.attributes)
            for body in _bodies(proto):
                self._read(body)

    def _constant(self, name: str, attributes: dict[str, Any]) -> None:
        kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        if isinstance(attributes.get("value"), onnx.TensorProto):
            self.constants[name] = attributes["value"]
        for key, kind in kinds.items():
            if key in attributes:
                self.constants[name] = numpy_helper.from_array(np.asarray(attributes[key], kind))


def layer_of(proto: onnx.NodeProto) -> str:
    """The torch module that a node was traced from; empty where the file does not say."""
    return next((p.value for p in proto.metadata_props if p.key == LAYER_KEY), "")


def layers_of(path: Path) -> dict[str, str]:
    """The torch module of each node in an ONNX file by the node's name; empty where that is no ONNX file."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return {}
    return layers_in(model)


def layers_in(model: onnx.ModelProto) -> dict[str, str]:
    """The torch module of each node by the node's name."""
    return {node.name: layer_of(node) for node in model.graph.node}


def _value(info: onnx.ValueInfoProto) -> Value:
    if info.type.WhichOneof("value") not in ("tensor_type", None):
        return Value(CONTAINER)
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(tensor.elem_type)
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return Value(tensor.elem_type, shape)


def _is_shape(value: Value) -> bool:
    return value.type in _INTEGERS and value.shape is not None and len(value.shape) < 2


def _bodies(proto: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def type_names(types: Iterable[int]) -> str:
    """ONNX element types in words: `FLOAT, INT64`."""
    return ", ".join(onnx.TensorProto.DataType.Name(kind) for kind in types)
