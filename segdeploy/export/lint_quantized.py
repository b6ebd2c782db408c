"""Rows about quantised graphs: the QuantizeLinear and DequantizeLinear pairs that TensorRT takes."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto as T

from segdeploy.export.lint_graph import Node, type_names
from segdeploy.export.lint_row import Row

_PAIR = "QuantizeLinear DequantizeLinear"
_TRT_GRAPH = "use model.int8-trt.onnx"
# Which side of the weights counts output channels, where an operator reads them as its second input.
_CHANNELS = {"Conv": (0,), "ConvTranspose": (0, 1), "Gemm": (0, 1), "MatMul": (-1, 1)}
_QUANTIZED = (T.INT8, T.UINT8, T.FLOAT8E4M3FN, T.INT4, T.FLOAT4E2M1, 0)


def _kind(node: Node) -> int:
    """The quantised type: of what Quantize writes, of what Dequantize reads."""
    return node.result().type if node.operator == "QuantizeLinear" else node.value(0).type


def _shifted(node: Node) -> bool:
    zero = node.constant(2)
    return zero is not None and bool(np.any(zero.astype(np.float32)))


def _shifted_uint8(node: Node) -> bool:
    return _kind(node) == T.UINT8 and _shifted(node)


def _uint8(node: Node) -> bool:
    """UINT8 activations with zero point 0: taken as INT8."""
    return node.operator == "QuantizeLinear" and _kind(node) == T.UINT8 and not _shifted(node)


def _uint8_stored(node: Node) -> bool:
    """UINT8 weights, or UINT8 data that are not a QuantizeLinear's."""
    if node.operator != "DequantizeLinear" or _kind(node) != T.UINT8 or _shifted(node):
        return False
    name = node.input(0)
    return name in node.graph.constants or name in node.graph.inputs


def _not_quantized(node: Node) -> str:
    kind = _kind(node)
    return "" if kind in _QUANTIZED or kind == T.UINT8 else type_names([kind])


def _not_positive(node: Node) -> bool:
    scale = node.constant(1)
    return scale is not None and bool(np.any(scale.astype(np.float32) <= 0))


def _per_channel(node: Node) -> bool:
    return max(node.value(1).shape or (1,), default=1) > 1 and not node.attributes.get("block_size")


def _is_weight(node: Node) -> bool:
    """Whether the data are a constant, or such a constant quantised inside the graph."""
    name = node.input(0)
    if name in node.graph.constants:
        return True
    sources = [other for other in node.graph.nodes if name in other.proto.output]
    return any(o.operator == "QuantizeLinear" and o.input(0) in node.graph.constants for o in sources)


def _per_channel_activation(node: Node) -> bool:
    return _per_channel(node) and not _is_weight(node)


def _wrong_axis(node: Node) -> str:
    """Weights with scales along another side than that of their reader's output channels."""
    if node.operator != "DequantizeLinear" or not _per_channel(node) or not _is_weight(node):
        return ""
    axis, rank = node.attributes.get("axis", 1), len(node.value(0).shape or ())
    for reader in node.graph.readers.get(node.proto.output[0], ()):
        allowed = _CHANNELS.get(reader.operator)
        if (
            allowed
            and reader.input(1) == node.proto.output[0]
            and axis % max(rank, 1) not in {side % max(rank, 1) for side in allowed}
        ):
            return f"axis={axis} into {reader.operator}"
    return ""


ROWS = (
    Row(
        name="uint8-activations",
        severity="error",
        operators=_PAIR,
        when=_shifted_uint8,
        reason="UINT8 with a zero point, which onnxruntime's CPU wants and TensorRT refuses",
        fix=_TRT_GRAPH,
        source="RTX: non-zero zero point is not supported; operators.md",
        rtx="parser",
    ),
    Row(
        name="uint8-as-int8",
        severity="error",
        operators=_PAIR,
        when=_uint8,
        reason="UINT8 that TensorRT computes as INT8, so that the upper half of its values is lost",
        fix=_TRT_GRAPH,
        source="operators.md: INT8 only; RTX: taken as INT8",
    ),
    Row(
        name="uint8-weights",
        severity="error",
        operators="DequantizeLinear",
        when=_uint8_stored,
        reason="UINT8 weights",
        fix=f"quantise them to INT8 with zero point 0, or {_TRT_GRAPH}",
        source="RTX; operators.md",
        rtx="parser",
    ),
    Row(
        name="zero-point",
        severity="error",
        operators=_PAIR,
        when=lambda node: _kind(node) != T.UINT8 and _shifted(node),
        reason="a zero point that is not 0",
        fix=f"calibrate symmetrically (ActivationSymmetric, WeightSymmetric), or {_TRT_GRAPH}",
        source="RTX; operators.md",
        rtx="parser",
    ),
    Row(
        name="zero-point-varies",
        severity="error",
        operators=_PAIR,
        when=lambda node: not node.is_constant(2),
        reason="a zero point that is not a constant",
        fix="leave it out, or make it an initializer",
        source="RTX: zero_point which is not an initializer",
        rtx="builder",
    ),
    Row(
        name="quantized-type",
        severity="error",
        operators=_PAIR,
        when=_not_quantized,
        reason="a quantised type that TensorRT does not have",
        fix="quantise to INT8; leave biases (INT32) in FLOAT: onnxruntime's option QuantizeBias=False",
        source="RTX: must be FP8, FP4, Int4, Int8 or UInt8; operators.md",
        rtx="parser",
    ),
    Row(
        name="scale-sign",
        severity="error",
        operators=_PAIR,
        when=_not_positive,
        reason="a scale that is zero or negative",
        fix="calibrate with data for which the tensor is not constant, or leave its operator out",
        source="RTX: scale coefficients must all be positive",
        rtx="parser",
    ),
    Row(
        name="scale-varies",
        severity="warning",
        operators=_PAIR,
        when=lambda node: not node.is_constant(1),
        reason="a scale that is computed",
        fix="make it an initializer, so that the pair is fused with what it surrounds",
        source="RTX: taken; fusion wants build-time scales",
    ),
    Row(
        name="per-channel-activation",
        severity="warning",
        operators=_PAIR,
        when=_per_channel_activation,
        reason="activations with a scale for each channel, which no INT8 kernel takes",
        fix="give activations one scale; only weights have one for each channel",
        source="RTX: taken, and computed in float",
    ),
    Row(
        name="weight-axis",
        severity="warning",
        operators=_PAIR,
        when=_wrong_axis,
        reason="weights with scales along another side than output channels, which no INT8 kernel takes",
        fix="quantise them along the output channels (axis 0; 1 for ConvTranspose)",
        source="RTX: taken, and computed in float",
    ),
)
