"""A graph's FLOAT tensors retyped node by node to FP16 or FP32, with as few casts as the choice allows.

Which inputs follow a node's precision is read from ONNX's own operator schemas.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from segdeploy.export.graph import FLOAT, HALF, PRODUCTS, GraphView, Names

if TYPE_CHECKING:
    from collections.abc import Collection

_HALF = "tensor(float16)"
# They take any type, and what they give does not depend on it.
_READ_ANY = {"Cast", "IsInf", "IsNaN", "Shape", "Size"}
# Inputs of a type of their own, which the schema would let be FP16: places in an image, a depth.
_STAY = {"Resize": {1}, "OneHot": {0, 1}}
# Their output's type stands in an attribute (Cast and ConstantOfShape, which this module writes, aside).
_TYPED_BY_ATTRIBUTE = {"Bernoulli", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


class Slots:
    """Which inputs and outputs of each node hold FLOAT and take the node's precision (tensor names, by node)."""

    def __init__(self, view: GraphView) -> None:
        self.view = view
        self.inputs: list[list[int]] = []
        self.outputs: list[list[str]] = []
        self.fp32_only: set[int] = set()
        for place, node in enumerate(view.nodes):
            self._look(place, node)

    def _look(self, place: int, node: onnx.NodeProto) -> None:
        types = self.view.types
        gives = [name for name in node.output if types.get(name) == FLOAT]
        if node.op_type in _READ_ANY:
            # A Cast that feeds only casts (class ids on their way to uint8) computes nothing.
            computes = any(self.view.nodes[r].op_type not in _READ_ANY for n in gives for r in self.view.readers[n])
            self.inputs.append([])
            self.outputs.append(gives if computes else [])
            return
        reads, writes, halves = _formals(node, self.view.opset)
        own = _STAY.get(node.op_type, ())
        floats = [i for i, name in enumerate(node.input) if types.get(name) == FLOAT]
        follow = [i for i in floats if i not in own and reads[i] != "tensor(float)"]
        words = {reads[i] for i in follow} | {w for w, n in zip(writes, node.output, strict=True) if n in gives}
        if not words <= halves:
            self.fp32_only.add(place)
        self.inputs.append(follow)
        self.outputs.append(gives)

    @cached_property
    def computing(self) -> list[int]:
        """Nodes that have a precision at all; the others are shape arithmetic and class ids."""
        return [i for i in range(len(self.view.nodes)) if self.inputs[i] or self.outputs[i] or i in self.fp32_only]


def _formals(node: onnx.NodeProto, opset: int) -> tuple[list[str], list[str], set[str]]:
    """The schema's type word for each input and output of the node, and which of the words may be FP16."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:  # an operator of another domain
        return [""] * len(node.input), [""] * len(node.output), set()
    reads, writes = (
        [formals[min(i, len(formals) - 1)].type_str for i in range(len(names))]  # the last may be repeated
        for formals, names in ((schema.inputs, node.input), (schema.outputs, node.output))
    )
    if node.op_type in _TYPED_BY_ATTRIBUTE:
        return reads, writes, set()
    return reads, writes, {c.type_param_str for c in schema.type_constraints if _HALF in c.allowed_type_strs}


def save_casts(slots: Slots, fp32: Collection[int]) -> set[int]:
    """Cheap nodes to take to FP32 too, because fewer casts are needed then.

    Candidates are the connected groups of FP16 nodes without a matrix product among them, and each such node alone.
    A group goes over where that lowers the number of casts, until none does.
    """
    nodes, moved = slots.view.nodes, set(fp32)
    cheap = {i for i in slots.computing if nodes[i].op_type not in PRODUCTS}
    changed = True
    while changed:
        changed = False
        for group in [*_groups(slots, cheap - moved), *({i} for i in sorted(cheap - moved))]:
            if not group & moved and _casts(slots, group, moved | group) < _casts(slots, group, moved):
                moved |= group
                changed = True
    return moved - set(fp32)


def _groups(slots: Slots, among: set[int]) -> list[set[int]]:
    left, groups = set(among), []
    while left:
        group, at = set(), [min(left)]
        while at:
            here = at.pop()
            if here in left:
                left.remove(here)
                group.add(here)
                at += [slots.view.producer[t] for t in _read(slots, here) if t in slots.view.producer]
                at += [r for t in slots.outputs[here] for r in slots.view.readers[t]]
        groups.append(group)
    return groups


def _read(slots: Slots, place: int) -> list[str]:
    node = slots.view.nodes[place]
    return [node.input[i] for i in slots.inputs[place] if node.input[i] not in slots.view.constants]


def _casts(slots: Slots, group: set[int], fp32: set[int]) -> int:
    """How many tensors that the group touches are read in another precision than they are written in."""
    touched = {t for i in group for t in (*_read(slots, i), *slots.outputs[i])}
    count = 0
    for tensor in touched:
        writer = slots.view.producer.get(tensor)
        written = writer is None or writer in fp32 or tensor not in slots.outputs[writer]
        readers = [r for r in slots.view.readers[tensor] if tensor in _read(slots, r)]
        is_output = any(v.name == tensor for v in slots.view.model.graph.output)
        count += any((r in fp32) != written for r in readers) or (is_output and not written)
    return count


def retype(slots: Slots, fp32: Collection[int]) -> onnx.ModelProto:
    """The graph with every node outside `fp32` in FP16: types, weights, and one cast for each tensor that needs it.

    Operators without an FP16 form stay in FP32 in any case.

    Names of nodes and of the tensors that they write stay; a cast's are the tensor's with `.fp16` or `.fp32` behind.
    """
    writer = _Writer(slots, slots.fp32_only | set(fp32))
    for place in range(len(slots.view.nodes)):
        writer.add(place)
    return writer.finish()


class _Writer:
    def __init__(self, slots: Slots, fp32: set[int]) -> None:
        self.slots, self.view, self.fp32 = slots, slots.view, fp32
        self.names = Names(self.view.model)
        self.nodes: list[onnx.NodeProto] = []
        self.now = {n: FLOAT for n, t in self.view.types.items() if t == FLOAT}
        self.casts: dict[tuple[str, int], str] = {}
        self.uses: dict[str, set[int]] = defaultdict(set)
        for place, node in enumerate(self.view.nodes):
            for i, name in enumerate(node.input):
                if name in self.view.constants and self.view.types[name] == FLOAT:
                    self.uses[name].add(self._precision(place) if i in slots.inputs[place] else FLOAT)

    def _precision(self, place: int) -> int:
        return FLOAT if place in self.fp32 else HALF

    def add(self, place: int) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(self.view.nodes[place])
        to = self._precision(place)
        for i, name in enumerate(node.input):
            if i in self.slots.inputs[place]:
                node.input[i] = self._supply(name, to)
            elif self.view.types.get(name) == FLOAT and node.op_type not in _READ_ANY:
                node.input[i] = self._supply(name, FLOAT)
        if to == HALF and self.slots.outputs[place]:
            for name in self.slots.outputs[place]:
                self.now[name] = HALF
            _set_type_attribute(node)
        self.nodes.append(node)

    def _supply(self, name: str, to: int) -> str:
        if name in self.view.constants:
            both = len(self.uses[name]) > 1 and to == HALF
            return self._other(name, to) if both else name
        if self.now[name] == to:
            return name
        if (name, to) not in self.casts:
            self.nodes.append(self.names.cast(name, self._other(name, to), to))
        return self._other(name, to)

    def _other(self, name: str, to: int) -> str:
        if (name, to) not in self.casts:
            self.casts[name, to] = self.names.new(f"{name}.{'fp16' if to == HALF else 'fp32'}")
        return self.casts[name, to]

    def finish(self) -> onnx.ModelProto:
        graph = self.view.model.graph
        for output in graph.output:
            if self.now.get(output.name) == HALF:
                inner = self.names.new(f"{output.name}.fp16")
                for node in self.nodes:
                    node.input[:] = [inner if n == output.name else n for n in node.input]
                    node.output[:] = [inner if n == output.name else n for n in node.output]
                self.nodes.append(self.names.cast(inner, output.name, FLOAT))
        result = onnx.ModelProto()
        result.CopyFrom(self.view.model)
        del result.graph.node[:], result.graph.value_info[:], result.graph.initializer[:]
        result.graph.node.extend(self.nodes)
        for constant in graph.initializer:
            uses = self.uses.get(constant.name, {FLOAT})
            if constant.data_type != FLOAT or FLOAT in uses:
                result.graph.initializer.append(constant)
            if constant.data_type == FLOAT and HALF in uses:
                name = self._other(constant.name, HALF) if FLOAT in uses else constant.name
                half = to_half(self.view.constants[constant.name])
                result.graph.initializer.append(numpy_helper.from_array(half, name))
        return result


def to_half(x: np.ndarray) -> np.ndarray:
    """Rounded to FP16; what is beyond becomes infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def _set_type_attribute(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            attribute.i = HALF
        if node.op_type == "ConstantOfShape" and attribute.name == "value":
            half = to_half(numpy_helper.to_array(attribute.t))
            attribute.t.CopyFrom(numpy_helper.from_array(half))
