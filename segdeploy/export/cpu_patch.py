"""A graph in the middle of being rewritten: who reads a tensor, how many channels it has, nodes in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from segdeploy.export.graph import Names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_PLAIN = {"group": 1, "strides": [1, 1], "dilations": [1, 1]}


class Patch:
    """A copy of a model, and tables of it that follow every change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.graph = self.model.graph
        self.constants = {c.name: c for c in graph.initializer}
        self.channels = {
            v.name: v.type.tensor_type.shape.dim[1].dim_value
            for v in (*graph.value_info, *graph.input)
            if len(v.type.tensor_type.shape.dim) == 4
        }
        self.outputs = {v.name for v in graph.output}
        self._names = Names(self.model)

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor; None where there are more or fewer."""
        found = [node for node in self.graph.node for read in node.input if read == name]
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that writes a tensor."""
        return next((node for node in self.graph.node if name in node.output), None)

    def value(self, name: str) -> NDArray[Any]:
        """A constant's array."""
        return numpy_helper.to_array(self.constants[name])

    def weight_of(self, node: onnx.NodeProto | None, kernel: int) -> NDArray[np.float32] | None:
        """The constant weight of a square convolution that keeps the size and mixes all channels; None: no such one."""
        if node is None or node.op_type != "Conv" or any(name not in self.constants for name in node.input[1:]):
            return None
        weight = self.value(node.input[1])
        form = {**_PLAIN, "pads": [0] * 4} | attributes(node)
        wanted = {**_PLAIN, "pads": [kernel // 2] * 4}
        fits = weight.shape[2:] == (kernel, kernel) and all(form[key] == value for key, value in wanted.items())
        return weight if fits and weight.dtype == np.float32 else None

    def scales_of(self, node: onnx.NodeProto | None) -> list[float] | None:
        """The constant factors of a Resize; None where it is none, or is given sizes."""
        if node is None or node.op_type != "Resize" or len(node.input) != 3 or node.input[2] not in self.constants:
            return None
        scales: list[float] = self.value(node.input[2]).tolist()
        return scales

    def replace(self, old: onnx.NodeProto, gone: Iterable[onnx.NodeProto] = ()) -> Place:
        """Begin to write nodes in the place of `old`; `gone` are others that nothing will read any more."""
        return Place(self, old, list(gone))

    def finish(self) -> onnx.ModelProto:
        """The model, without constants that nothing reads any more."""
        read = {name for node in self.graph.node for name in node.input}
        for constant in [c for c in self.graph.initializer if c.name not in read]:
            self.graph.initializer.remove(constant)
        return self.model

    def constant(self, wish: str, value: NDArray[Any]) -> str:
        """A new constant's name."""
        made = numpy_helper.from_array(np.ascontiguousarray(value), self._names.new(wish))
        self.graph.initializer.append(made)
        self.constants[made.name] = made
        return str(made.name)

    def new(self, wish: str) -> str:
        """A free name."""
        return self._names.new(wish)


class Place:
    """Nodes that come for one that goes; they carry its name, its layer and at the end its output."""

    def __init__(self, patch: Patch, old: onnx.NodeProto, gone: list[onnx.NodeProto]) -> None:
        self.patch, self.old, self.gone = patch, old, gone
        self.made: list[onnx.NodeProto] = []

    def constant(self, what: str, value: NDArray[Any]) -> str:
        """A constant, named after what it is for."""
        return self.patch.constant(f"{self.old.output[0]}.{what}", value)

    def add(self, kind: str, inputs: list[str], what: str, *, last: bool = False, **form: Any) -> str:
        """A node, and what it writes; the `last` one writes what the old node wrote."""
        output = str(self.old.output[0]) if last else self.patch.new(f"{self.old.output[0]}.{what}")
        node = helper.make_node(kind, inputs, [output], name=self.patch.new(f"{self.old.name}.{what}"), **form)
        node.metadata_props.extend(self.old.metadata_props)
        self.made.append(node)
        return output

    def close(self) -> None:
        """Put them in, and take out the old ones."""
        nodes = self.patch.graph.node
        at = list(nodes).index(self.old)
        for node in reversed(self.made):
            nodes.insert(at, node)
        for node in (self.old, *self.gone):
            nodes.remove(node)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """By name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
