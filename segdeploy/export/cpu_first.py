"""The first convolution of an INT8 graph for a CPU reads the image itself: its weights hold the normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.export.qdq import Scale, attribute

if TYPE_CHECKING:
    from collections.abc import Set

    import onnx
    from numpy.typing import NDArray

    from segdeploy.export.qdq import Writer


@dataclass(frozen=True, slots=True)
class Normalisation:
    """image -> Cast -> Transpose -> Mul by `scale` -> Add of `shift` -> `conv`, and nothing else reads any of it.

    `nodes`: the names of the four. `scale`, `shift`: (3,) float.
    """

    nodes: tuple[str, ...]
    transpose: onnx.NodeProto
    conv: onnx.NodeProto
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def find_normalisation(writer: Writer, units: Set[str]) -> Normalisation | None:
    """None: the graph begins otherwise, or its first convolution is not of `units`."""
    found: list[onnx.NodeProto] = []
    reader = writer.sole_reader(writer.source.graph.input[0].name)
    while reader is not None and len(found) < 5:
        found.append(reader)
        reader = writer.sole_reader(reader.output[0])
    if [n.op_type for n in found] != ["Cast", "Transpose", "Mul", "Add", "Conv"] or found[-1].name not in units:
        return None
    scale, shift = (writer.weights.get(n.input[1]) for n in found[2:4])
    if scale is None or shift is None or scale.shape != (1, 3, 1, 1) or attribute(found[-1], "group", 1) != 1:
        return None
    names = tuple(n.name for n in found[:4])
    parts = scale.reshape(3).astype(np.float64), shift.reshape(3).astype(np.float64)
    return Normalisation(names, found[1], found[4], *parts)


def read_image(writer: Writer, first: Normalisation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write the image as the convolution's input; gives weight and bias that hold the normalisation.

    Padding is 0 in the normalised image, so the mean colour in the image; the zero point stands for it, one grey for
    all three colours. A convolution that pads sees a border that is off by some hundredths of the range.
    """
    conv = first.conv
    zero = int(np.clip(round(float(np.mean(-first.shift / first.scale))), 0, 255))
    x = conv.input[0]
    writer.add(first.transpose, [writer.source.graph.input[0].name])
    inputs = [writer.constant(f"{x}.scale", np.float32(1)), writer.constant(f"{x}.zero", np.uint8(zero))]
    made = [first.transpose.output[0], *inputs]
    writer.pairs[x] = writer.make("DequantizeLinear", f"{x}.dequantize", made, f"{x}.dequantized")
    writer.used[x] = Scale(1.0, zero, np.uint8)
    weight = writer.weights[conv.input[1]].astype(np.float64)
    bias = writer.weights[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else np.zeros(len(weight))
    grey = first.scale * zero + first.shift
    return weight * first.scale.reshape(1, 3, 1, 1), bias + (weight.sum(axis=(2, 3)) * grey).sum(axis=1)
