"""INT8 graphs by static quantisation: one pass over calibration images, one graph for each target.

`cpu`: uint8 activations with a zero point and int8 weights, which onnxruntime's kernels multiply fast on CPUs with
VNNI or the like. `tensorrt`: int8 with zero point 0, as TensorRT's explicit quantisation has it. Both keep uint8 in
and out, the names of the nodes that live on, and all that is not worth eight bits in float.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import onnx

from segdeploy.errors import ExportError
from segdeploy.export import place_cpu, place_tensorrt
from segdeploy.export.decisions import Decision
from segdeploy.export.fp16_range import ALWAYS_FP32
from segdeploy.export.graph import FLOAT, HALF
from segdeploy.export.qdq import Scale, Writer, asymmetric, symmetric, weighted
from segdeploy.export.ranges import METHODS, collect
from segdeploy.export.sensitivity import Choice, Judge, Loss, leave_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.export.ranges import Histogram, Method

# For each target what places the pairs, the operators that have weights there, and a scale for a range.
_PLACES = {
    "cpu": (place_cpu.for_cpu, place_cpu.OPERATORS, asymmetric),
    "tensorrt": (place_tensorrt.for_tensorrt, place_tensorrt.OPERATORS, symmetric),
}
TARGETS = tuple(_PLACES)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A graph for one target, with a decision for each node that computes, and what it loses on the images."""

    model: onnx.ModelProto
    decisions: tuple[Decision, ...]
    loss: Loss


def quantize(
    model: onnx.ModelProto,
    images: Sequence[NDArray[np.uint8]],
    *,
    method: Method = "percentile",
    targets: Sequence[str] = TARGETS,
    min_agreement: float = 0.98,
    judged_images: int = 4,
    evaluations: int = 96,
    keep_fp32: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Quantized]:
    """The INT8 graphs of a graph that `export_onnx` wrote.

    Args:
        model: FP32, `image` uint8 (batch, H, W, 3) -> `mask` uint8 (batch, H, W).
        images: each (1, H, W, 3) uint8, from the training data; gone through once, the first few again.
        method: how the range of a tensor follows from its values, see `Histogram.range`.
        targets: of "cpu" and "tensorrt".
        min_agreement: share of labels on the first images that must stay as they are; layers that cost most stay
            float until it is kept. 0 leaves none out.
        judged_images: how many images that is measured on.
        evaluations: how many graphs are run for it at most, for each target.
        keep_fp32: patterns (shell style) of names of nodes that stay float.
        progress: called with (done, total) after each calibration image.

    Returns:
        Target -> its graph.

    Raises:
        ExportError: an unknown method or target, a graph without a layer that could be INT8, values that are not
            finite, or a `min_agreement` out of reach.
        DataError: no images.
    """
    if method not in METHODS:
        raise ExportError(f"calibration method: expected one of {', '.join(METHODS)}, got {method!r}")
    unknown = next((t for t in targets if t not in _PLACES), None)
    if unknown is not None:
        raise ExportError(f"INT8 target: expected one of {', '.join(_PLACES)}, got {unknown!r}")
    model = onnx.shape_inference.infer_shapes(model)
    layers = {target: _layers(model, target, keep_fp32) for target in targets}
    wanted = _Wanted()
    for target, names in layers.items():
        _PLACES[target][0](Writer(model, wanted), set(names))
    histograms = collect(model, sorted(wanted.names), images, progress)
    judge = Judge(model, images[:judged_images])
    return {
        target: _for_target(model, target, names, histograms, method, judge, min_agreement, evaluations)
        for target, names in layers.items()
    }


class _Wanted(dict[str, Scale]):
    """Stands for the scales, and writes down which are asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __missing__(self, name: str) -> Scale:
        self.names.add(name)
        return asymmetric(0, 1)


def _layers(model: onnx.ModelProto, target: str, keep_fp32: Sequence[str]) -> list[str]:
    found = weighted(model, _PLACES[target][1])
    found = [name for name in found if not any(fnmatch(name, pattern) for pattern in keep_fp32)]
    if not found:
        raise ExportError(f"INT8 for {target}: the graph has no convolution or matrix product with constant weights")
    return found


def _for_target(
    model: onnx.ModelProto,
    target: str,
    layers: Sequence[str],
    histograms: Mapping[str, Histogram],
    method: Method,
    judge: Judge,
    min_agreement: float,
    evaluations: int,
) -> Quantized:
    place, _, make = _PLACES[target]
    scales = {name: make(*found.range(method)) for name, found in histograms.items()}

    def build(units: Set[str]) -> onnx.ModelProto:
        writer = Writer(model, scales)
        place(writer, units)
        return writer.finish()

    choice = leave_out(layers, build, judge, min_agreement=min_agreement, evaluations=evaluations)
    writer = Writer(model, scales)
    units = set(layers) - set(choice.left_out)
    followers = place(writer, units)
    return Quantized(writer.finish(), _decide(writer, layers, units, followers, choice), choice.loss)


def _decide(
    writer: Writer, layers: Sequence[str], units: Set[str], followers: Set[str], choice: Choice
) -> tuple[Decision, ...]:
    decisions = []
    for node in writer.source.graph.node:
        if not any(writer.types.get(name) in (FLOAT, HALF) for name in node.output):
            continue  # shapes, labels
        if node.name in units:
            reason = "a layer with weights: eight bits for each channel"
        elif node.name in followers:
            reason = "between integers"
        elif node.name in choice.left_out:
            reason = f"left out, by itself: {choice.left_out[node.name]}"
        elif node.op_type in ALWAYS_FP32:
            reason = "norms and softmax stay in float"
        elif node.op_type in place_tensorrt.OPERATORS and node.name not in layers:
            constant = any(name in writer.weights for name in node.input)
            reason = "kept by name, or no integer kernel" if constant else "both sides change with the image"
        else:
            reason = "no integer form here"
        precision = "int8" if node.name in units or node.name in followers else "fp32"
        reached = [writer.used[name].largest for name in node.input if name in writer.used]
        largest = max(reached) if reached and precision == "int8" else None
        decisions.append(Decision(node.name, node.op_type, precision, largest, reason))
    return tuple(decisions)
