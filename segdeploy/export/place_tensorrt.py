"""Where the pairs of an INT8 graph stand for TensorRT.

It fuses a weighted operator whose inputs come from pairs with what follows in float, and moves the pairs itself. So
pairs stand before the weighted operators, and on the shortcut of a residual sum, which is joined to the convolution
before it (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.export.fp16_range import SMALLEST
from segdeploy.export.qdq import attribute, channel_limits

if TYPE_CHECKING:
    from collections.abc import Set

    import onnx
    from numpy.typing import NDArray

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
            axis = channel_axis(node)
            inputs[1], _ = writer.weight(node.input[1], axis, least=least_steps(writer.weights[node.input[1]], axis))
        elif node.op_type == "Add" and (shortcut := _shortcut(writer, node, units)) is not None:
            inputs[shortcut] = writer.pair(inputs[shortcut])
            sums.add(node.name)
        writer.add(node, inputs)
    return sums


def least_steps(weight: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """FP16's smallest normal number for each channel that may have so large a step, 0 for the others.

    The steps will be FP16, where those of a channel of tiny weights become 0. Such a channel may be rounded more
    coarsely while that takes no more of a weight than an eighth of what rounding takes in the layer's largest channel;
    where it would take more, the step stays, and the layer becomes FP32 around its integers.
    """
    largest = channel_limits(weight, axis)
    taken = np.minimum(largest, SMALLEST / 2)
    return np.where(taken <= largest.max(initial=0) / 127 / 2 / 8, SMALLEST, 0.0)


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
