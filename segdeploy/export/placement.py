"""Where the pairs stand: the two targets run eight bits in different places.

onnxruntime fuses an operator when each of its inputs comes from a pair and its output goes to one; what stays float
between two such operators costs more than it saves. So on a CPU whole chains become integers: activations, sums,
products, gates and pools too. TensorRT fuses a weighted operator whose inputs come from pairs with what follows in
float, and moves the pairs itself; so pairs stand before the weighted operators, and on the shortcut of a residual
sum, which is joined to the convolution before it
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from segdeploy.export.qdq import Scale, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from numpy.typing import NDArray

# The channel of a weight that one output comes from.
_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
_CPU_WEIGHTED = {"Conv", "Gemm", "MatMul"}
_ARITHMETIC = {"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"}
_MOVES = {"MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice"}
_GATES = {"HardSwish", "HardSigmoid"}


def weighted(model: onnx.ModelProto, operators: Set[str]) -> list[str]:
    """The names of the nodes that multiply by a constant weight: all that can be worth eight bits by itself."""
    constants = {c.name for c in model.graph.initializer}
    return [
        n.name
        for n in model.graph.node
        if n.op_type in operators and n.input[0] not in constants and constants.issuperset(n.input[1:])
    ]


def for_cpu(writer: Writer, units: Set[str]) -> set[str]:
    """uint8 activations, int8 weights, int32 biases; `units` are the weighted nodes that become integers.

    Returns:
        The names of the other nodes that do.
    """
    first = _normalisation(writer, units)
    absorbed: set[str] = set()
    followers: set[str] = set()
    for node in writer.source.graph.node:
        x = node.input[0] if node.input else ""
        follows = bool(node.input) and all(name in writer.pairs for name in node.input)
        if first is not None and node.name in first.nodes:
            continue
        if first is not None and node is first.conv:
            _first_conv(writer, first)
        elif node.name in units and node.op_type == "Conv":
            writer.pair(x)
            _conv(writer, node, writer.weights[node.input[1]], _bias(writer, node))
        elif node.name in units:
            # Their output stays float: a normalisation, a softmax or an activation without an integer form follows.
            axis = _axis(node)
            made, _ = writer.weight(node.input[1], axis)
            writer.add(node, [writer.pair(x), made, *node.input[2:]])
            continue
        elif x in absorbed:
            writer.add(node, node.input)
        elif node.op_type in _GATES and x in writer.pairs and _is_hard(node):
            _gate(writer, node)
        elif node.op_type == "ReduceMean" and x in writer.pairs and _is_global_pool(writer, node):
            writer.make("GlobalAveragePool", node.name, [writer.pairs[x]], node.output[0])
        elif (node.op_type in _ARITHMETIC and follows) or (_only_moves(node) and x in writer.pairs):
            writer.add(node, [writer.pairs.get(name, name) for name in node.input])
        else:
            writer.add(node, [writer.pairs.get(name, name) for name in node.input])
            continue
        if node.name not in units:
            followers.add(node.name)
        output = node.output[0]
        reader = writer.sole_reader(output)
        if node.op_type in ("Conv", "Add") and reader is not None and _is_cut_off(writer, reader):
            absorbed.add(output)  # the pair comes after it, and its zero point cuts off what is below 0
        else:
            writer.pair(output, writer.used[x] if _only_moves(node) else _gate_scale(node))
    return followers | (first.nodes if first else set())


def for_tensorrt(writer: Writer, units: Set[str]) -> set[str]:
    """int8 with zero point 0 before weighted nodes, int8 weights for each channel, biases in float.

    Returns:
        The names of the residual sums whose shortcut comes through eight bits.
    """
    sums: set[str] = set()
    for node in writer.source.graph.node:
        inputs = list(node.input)
        if node.name in units:
            inputs[0] = writer.pair(node.input[0])
            inputs[1], _ = writer.weight(node.input[1], _axis(node))
        elif node.op_type == "Add" and (shortcut := _shortcut(writer, node, units)) is not None:
            inputs[shortcut] = writer.pair(inputs[shortcut])
            sums.add(node.name)
        writer.add(node, inputs)
    return sums


PLACEMENTS: dict[str, tuple[Callable[[Writer, Set[str]], set[str]], Set[str]]] = {
    "cpu": (for_cpu, _CPU_WEIGHTED),
    "tensorrt": (for_tensorrt, set(_AXES)),
}
"""For each target the function that places the pairs, and the operators that it has weights of."""


def _axis(node: onnx.NodeProto) -> int:
    return 0 if _attribute(node, "transB", 0) else _AXES[node.op_type]


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _only_moves(node: onnx.NodeProto) -> bool:
    """Whether each value that comes out is one that went in."""
    if node.op_type == "Resize":
        return any(a.name == "mode" and a.s == b"nearest" for a in node.attribute)
    return node.op_type in _MOVES and len(node.output) == 1


def _is_cut_off(writer: Writer, node: onnx.NodeProto) -> bool:
    """Whether the node is an activation that sets what is below 0 to 0 and leaves what its range holds."""
    if node.op_type == "Relu":
        return True
    return node.op_type == "Clip" and node.input[1] in writer.weights and not writer.weights[node.input[1]].any()


def _is_hard(node: onnx.NodeProto) -> bool:
    """Whether a HardSigmoid is clip(x + 3, 0, 6) / 6, as HardSwish has it (https://arxiv.org/abs/1905.02244)."""
    slope, middle = _attribute(node, "alpha", 0.2), _attribute(node, "beta", 0.5)
    return node.op_type == "HardSwish" or (abs(slope - 1 / 6) < 1e-6 and middle == 0.5)


def _is_global_pool(writer: Writer, node: onnx.NodeProto) -> bool:
    axes = writer.weights.get(node.input[1]) if len(node.input) > 1 else None
    return axes is not None and sorted(axes % 4) == [2, 3] and _attribute(node, "keepdims", 1) == 1


def _gate_scale(node: onnx.NodeProto) -> Scale | None:
    # Written in steps of 6 / 255, read in steps of 1 / 255: that is the division by 6.
    return Scale(6 / 255, 0, np.uint8, read=1 / 255) if node.op_type == "HardSigmoid" else None


def _gate(writer: Writer, node: onnx.NodeProto) -> None:
    """Hard sigmoid and hard swish, which have no integer kernels, of a sum and a product, which have."""
    x, y = node.input[0], node.output[0]
    three = [writer.constant("three.quantized", np.uint8(3)), writer.constant("three.scale", np.float32(1))]
    zero = writer.constant("three.zero", np.uint8(0))
    made = writer.make("DequantizeLinear", f"{node.name}.three", [*three, zero], f"{node.name}.three")
    limits = [writer.constant("gate.low", np.float32(0)), writer.constant("gate.high", np.float32(6))]
    total = writer.make("Add", f"{node.name}.add", [writer.pairs[x], made], f"{node.name}.sum")
    if node.op_type == "HardSigmoid":
        writer.make("Clip", node.name, [total, *limits], y)
        return
    gate = writer.make("Clip", f"{node.name}.clip", [total, *limits], f"{node.name}.gate")
    gate = writer.pair(gate, Scale(6 / 255, 0, np.uint8, read=1 / 255))
    writer.make("Mul", node.name, [writer.pairs[x], gate], y)


def _bias(writer: Writer, node: onnx.NodeProto) -> NDArray[np.floating] | None:
    return writer.weights[node.input[2]] if len(node.input) > 2 else None


def _conv(
    writer: Writer, node: onnx.NodeProto, weight: NDArray[np.floating], bias: NDArray[np.floating] | None
) -> None:
    x = node.input[0]
    scale = writer.used[x]
    step = scale.step if scale.read is None else scale.read
    # A channel of tiny weights and a large bias would have a bias beyond int32.
    least = None if bias is None else np.abs(bias.astype(np.float64)) / (step * 2**30)
    made, steps = writer.weight(node.input[1], 0, weight, least)
    inputs = [writer.pairs[x], made]
    if bias is not None:
        name = node.input[2] if len(node.input) > 2 else f"{node.name}.bias"
        inputs.append(writer.bias(name, bias, step * steps))
    writer.add(node, inputs)


class _Normalisation:
    """image -> Cast -> Transpose -> Mul by `scale` -> Add of `shift` -> `conv`, and nothing else reads any of it."""

    def __init__(self, nodes: list[onnx.NodeProto], scale: NDArray[np.floating], shift: NDArray[np.floating]) -> None:
        *inner, self.conv = nodes
        self.nodes = {n.name for n in inner}
        self.transpose = nodes[1]
        self.scale, self.shift = scale.reshape(-1), shift.reshape(-1)


def _normalisation(writer: Writer, units: Set[str]) -> _Normalisation | None:
    nodes: list[onnx.NodeProto] = []
    reader = writer.sole_reader(writer.source.graph.input[0].name)
    while reader is not None and len(nodes) < 5:
        nodes.append(reader)
        reader = writer.sole_reader(reader.output[0])
    if [n.op_type for n in nodes] != ["Cast", "Transpose", "Mul", "Add", "Conv"] or nodes[-1].name not in units:
        return None
    scale, shift = (writer.weights.get(n.input[1]) for n in nodes[2:4])
    if scale is None or shift is None or scale.shape != (1, 3, 1, 1) or _attribute(nodes[-1], "group", 1) != 1:
        return None
    return _Normalisation(nodes, scale, shift)


def _first_conv(writer: Writer, first: _Normalisation) -> None:
    """The image is eight bits already: the convolution reads it as it is, and its weights hold the normalisation.

    The zero point stands for the padding, which in the normalised image is the mean colour: one grey of it here, so
    that a border of the convolution's width sees another black by a few hundredths.
    """
    conv, transpose = first.conv, first.transpose
    zero = int(np.clip(round(float(np.mean(-first.shift / first.scale))), 0, 255))
    x = conv.input[0]
    writer.add(transpose, [writer.source.graph.input[0].name])
    inputs = [writer.constant(f"{x}.scale", np.float32(1)), writer.constant(f"{x}.zero", np.uint8(zero))]
    name = writer.make("DequantizeLinear", f"{x}.dequantize", [transpose.output[0], *inputs], f"{x}.dequantized")
    writer.pairs[x], writer.used[x] = name, Scale(1.0, zero, np.uint8)
    weight = writer.weights[conv.input[1]].astype(np.float64)
    grey = first.scale * zero + first.shift
    bias = _bias(writer, conv)
    bias = (weight.sum(axis=(2, 3)) * grey).sum(axis=1) + (0 if bias is None else bias)
    _conv(writer, conv, weight * first.scale.reshape(1, -1, 1, 1), bias)


def _shortcut(writer: Writer, node: onnx.NodeProto, units: Set[str]) -> int | None:
    """Which input of a residual sum is not the convolution that TensorRT joins the sum to; None: it is none."""

    def joined(name: str) -> bool:
        producer = writer.producers.get(name)
        found = producer is not None and producer.op_type == "Conv" and producer.name in units
        return found and writer.sole_reader(name) is not None

    sides = [joined(name) for name in node.input]
    if not any(sides) or any(name in writer.weights for name in node.input):
        return None
    return 0 if sides[1] else 1
