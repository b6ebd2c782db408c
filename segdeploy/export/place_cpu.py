"""Where the pairs of an INT8 graph stand for onnxruntime's CPU kernels, and what is written otherwise for them.

onnxruntime runs an operator on integers when each of its inputs comes from a pair and its output goes to one; what
stays float in between costs more than it saves. So whole chains become integers, activations, sums, products, gates
and pools too. Its integer kernels keep the channels last, and some operators are slow in that layout: those are
written as others of the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.export.cpu_first import Normalisation, find_normalisation, read_image
from segdeploy.export.place_tensorrt import channel_axis
from segdeploy.export.qdq import Scale, attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    import onnx
    from numpy.typing import NDArray

    from segdeploy.export.qdq import Writer

OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
"""What has weights that onnxruntime multiplies by on eight bits."""

_FOLLOWING = {"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"}
_MOVING = {"MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice"}
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # channels last, and back
# clip(x + 3, 0, 6), written in steps of 6 / 255 and read in steps of 1 / 255: that is the division by 6.
_GATE = Scale(6 / 255, 0, np.uint8, read=1 / 255)


class Chains:
    """The graph as far as it is placed."""

    def __init__(self, writer: Writer, units: Set[str], first: Normalisation | None) -> None:
        self.writer = writer
        self.units = units
        self.first = first
        self.followers: set[str] = set(first.nodes) if first else set()
        self.open: set[str] = set()
        """Tensors of integer nodes whose pair comes after the activation that reads them."""
        self.last: set[str] = set()
        """Tensors whose channels are last, where the source has them second."""

    def is_integer(self, name: str) -> bool:
        """Whether a tensor comes from a pair."""
        return name in self.writer.pairs

    def close(self, node: onnx.NodeProto, scale: Scale | None = None) -> bool:
        """Put the pair after an integer node, or leave that to the activation after it."""
        output = node.output[0]
        reader = self.writer.sole_reader(output)
        if node.op_type in ("Conv", "Add") and reader is not None and _cuts_off(self.writer, reader):
            self.open.add(output)  # the zero point of the pair after it cuts off what is below 0
        else:
            self.writer.pair(output, scale)
        if node.name not in self.units:
            self.followers.add(node.name)
        return True


def for_cpu(writer: Writer, units: Set[str]) -> set[str]:
    """uint8 activations, int8 weights for each channel, int32 biases; `units`: the weighted nodes that become integers.

    Returns:
        The names of the other nodes that do.
    """
    chains = Chains(writer, units, find_normalisation(writer, units))
    for node in writer.source.graph.node:
        if not any(form(chains, node) for form in _FORMS):
            writer.add(node, [writer.pairs.get(name, name) for name in node.input])
    return chains.followers


def _image(chains: Chains, node: onnx.NodeProto) -> bool:
    """The image is eight bits already; the first convolution reads it as it is."""
    first = chains.first
    if first is None or node.name not in (*first.nodes, first.conv.name):
        return False
    if node.name != first.conv.name:
        return True  # nothing is left of it
    weight, bias = read_image(chains.writer, first)
    return _conv(chains, node, weight, bias)


def _layer(chains: Chains, node: onnx.NodeProto) -> bool:
    """A node with weights."""
    writer = chains.writer
    if node.name not in chains.units:
        return False
    x = writer.pair(node.input[0])
    if node.op_type == "Conv":
        bias = writer.weights[node.input[2]] if len(node.input) > 2 else None
        return _conv(chains, node, writer.weights[node.input[1]], bias)
    # Its output stays float: a normalisation, a softmax or an activation without an integer form follows.
    made, _ = writer.weight(node.input[1], channel_axis(node))
    writer.add(node, [x, made, *node.input[2:]])
    return True


def _conv(
    chains: Chains, node: onnx.NodeProto, weight: NDArray[np.floating[Any]], bias: NDArray[np.floating[Any]] | None
) -> bool:
    writer, x = chains.writer, node.input[0]
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
    return chains.close(node)


def _activation(chains: Chains, node: onnx.NodeProto) -> bool:
    """A ReLU after an integer node."""
    if not node.input or node.input[0] not in chains.open:
        return False
    chains.writer.add(node, node.input)
    return chains.close(node)


def _cuts_off(writer: Writer, node: onnx.NodeProto) -> bool:
    if node.op_type == "Relu":
        return True
    return node.op_type == "Clip" and node.input[1] in writer.weights and not writer.weights[node.input[1]].any()


def _gate(chains: Chains, node: onnx.NodeProto) -> bool:
    """Hard sigmoid and hard swish (https://arxiv.org/abs/1905.02244) have no integer kernels; sum and product have."""
    swish = node.op_type == "HardSwish"
    hard = node.op_type == "HardSigmoid" and abs(attribute(node, "alpha", 0.2) - 1 / 6) < 1e-6
    if not (swish or (hard and attribute(node, "beta", 0.5) == 0.5)) or not chains.is_integer(node.input[0]):
        return False
    writer, x, y = chains.writer, chains.writer.pairs[node.input[0]], node.output[0]
    three = [writer.constant("three.quantized", np.uint8(3)), writer.constant("three.scale", np.float32(1))]
    three.append(writer.constant("three.zero", np.uint8(0)))
    added = [x, writer.make("DequantizeLinear", f"{node.name}.three", three, f"{y}.three")]
    total = writer.make("Add", f"{node.name}.add", added, f"{y}.sum")
    limits = [writer.constant("gate.low", np.float32(0)), writer.constant("gate.high", np.float32(6))]
    if not swish:
        writer.make("Clip", node.name, [total, *limits], y)
        return chains.close(node, _GATE)
    gate = writer.pair(writer.make("Clip", f"{node.name}.clip", [total, *limits], f"{y}.gate"), _GATE)
    writer.make("Mul", node.name, [x, gate], y)
    return chains.close(node)


def _pool(chains: Chains, node: onnx.NodeProto) -> bool:
    """The mean over height and width, which has an integer kernel under its other name."""
    writer = chains.writer
    if node.op_type != "ReduceMean" or len(node.input) < 2 or not chains.is_integer(node.input[0]):
        return False
    axes = writer.weights.get(node.input[1])
    image = len(writer.shapes.get(node.input[0], [])) == 4 and attribute(node, "keepdims", 1) == 1
    if axes is None or not image or sorted(axes % 4) != [2, 3]:
        return False
    writer.make("GlobalAveragePool", node.name, [writer.pairs[node.input[0]]], node.output[0])
    return chains.close(node)


def _repeat(chains: Chains, node: onnx.NodeProto) -> bool:
    """Nearest upsampling of integers by whole factors, as copies: with the channels last ten times faster."""
    writer = chains.writer
    factors = _factors(writer, node, b"nearest")
    if factors is None or not chains.is_integer(node.input[0]):
        return False
    _, c, h, w = writer.shapes[node.input[0]]
    fy, fx = map(int, factors)
    if not (c and h and w) or factors != (fy, fx) or not _is_floor(node):
        return False
    x, y, name = f"{node.input[0]}.quantized", f"{node.output[0]}.quantized", node.name
    shapes = {"apart": [0, h, 1, w, 1, c], "wide": [1, h, fy, w, fx, c], "joined": [0, h * fy, w * fx, c]}
    made = {key: writer.constant(f"{name}.{key}", np.array(value, np.int64)) for key, value in shapes.items()}
    last = writer.make("Transpose", f"{name}.last", [x], f"{y}.last", perm=_LAST)
    apart = writer.make("Reshape", f"{name}.reshape", [last, made["apart"]], f"{y}.apart")
    wide = writer.make("Expand", name, [apart, made["wide"]], f"{y}.wide")
    joined = writer.make("Reshape", f"{name}.join", [wide, made["joined"]], f"{y}.joined")
    writer.make("Transpose", f"{name}.first", [joined], y, perm=_FIRST)
    writer.pass_on(node.output[0], writer.used[node.input[0]])
    chains.followers.add(name)
    return True


def _scores(chains: Chains, node: onnx.NodeProto) -> bool:
    """The last upsampling and the choice of the best class, in float, with the channels last as they come."""
    writer = chains.writer
    if node.op_type == "ArgMax" and node.input[0] in chains.last:
        attributes = {"axis": 3, "keepdims": 0}
        writer.make("ArgMax", node.name, list(node.input), node.output[0], **attributes)
        return True
    reader = writer.sole_reader(node.output[0])
    if reader is None or reader.op_type != "ArgMax" or attribute(reader, "axis", 0) != 1:
        return False
    if (
        _factors(writer, node, b"linear") is None
        or attribute(reader, "keepdims", 1)
        or not chains.is_integer(node.input[0])
    ):
        return False
    x, name = writer.pairs[node.input[0]], node.name
    scales = writer.constant(f"{name}.scales", writer.weights[node.input[2]][_LAST])
    last = writer.make("Transpose", f"{name}.last", [x], f"{node.output[0]}.last", perm=_LAST)
    writer.add(node, [last, "", scales])
    chains.last.add(node.output[0])
    return True


def _factors(writer: Writer, node: onnx.NodeProto, mode: bytes) -> tuple[float, float] | None:
    """By what a Resize of a map stretches height and width; None: it is none of this mode, or that is not known."""
    scales = writer.weights.get(node.input[2]) if node.op_type == "Resize" and len(node.input) == 3 else None
    if scales is None or scales.shape != (4,) or tuple(scales[:2]) != (1, 1) or attribute(node, "axes", None):
        return None
    if attribute(node, "mode", b"nearest") != mode or node.input[0] not in writer.shapes:
        return None
    return float(scales[2]), float(scales[3])


def _is_floor(node: onnx.NodeProto) -> bool:
    rounding = attribute(node, "coordinate_transformation_mode", b""), attribute(node, "nearest_mode", b"")
    return rounding == (b"asymmetric", b"floor")


def _following(chains: Chains, node: onnx.NodeProto) -> bool:
    """What has an integer kernel, or moves values without a look at them, between integers."""
    writer, x = chains.writer, node.input[0] if node.input else ""
    if node.op_type in _FOLLOWING and all(chains.is_integer(name) for name in node.input):
        writer.add(node, [writer.pairs[name] for name in node.input])
        return chains.close(node)
    if not chains.is_integer(x) or len(node.output) != 1 or not (node.op_type in _MOVING or _is_between(writer, node)):
        return False
    writer.add(node, [writer.pairs[x], *node.input[1:]])
    writer.pair(node.output[0], writer.used[x])
    chains.followers.add(node.name)
    return True


def _is_between(writer: Writer, node: onnx.NodeProto) -> bool:
    """A Resize whose values lie between those that went in, on the way to a node that takes integers."""
    if node.op_type != "Resize" or attribute(node, "mode", b"nearest") not in (b"nearest", b"linear"):
        return False
    return any(reader.op_type in _FOLLOWING | OPERATORS for reader in writer.readers.get(node.output[0], []))


_FORMS: tuple[Callable[[Chains, onnx.NodeProto], bool], ...] = (
    _image,
    _layer,
    _activation,
    _gate,
    _pool,
    _repeat,
    _scores,
    _following,
)
