"""Where the pairs of an INT8 graph stand for TensorRT.

It fuses a weighted operator whose inputs come from pairs with what follows in float, and moves the pairs itself. So
pairs stand before the weighted operators, and on the shortcut of a residual sum, which is joined to the convolution
before it (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.export.qdq import attribute

if TYPE_CHECKING:
    from collections.abc import Set

    import onnx

    from segdeploy.export.qdq import Writer

OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What has weights that TensorRT multiplies by on eight bits."""


def channel_axis(node: onnx.NodeProto) -> int:
    """The axis of a node's weight that each channel of its output has one place on."""
    if node.op_type == "Conv" or attribute(node, "transB", 0):
        return 0
    return 1


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
            inputs[1], _ = writer.weight(node.input[1], channel_axis(node))
        elif node.op_type == "Add" and (shortcut := _shortcut(writer, node, units)) is not None:
            inputs[shortcut] = writer.pair(inputs[shortcut])
            sums.add(node.name)
        writer.add(node, inputs)
    return sums


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
