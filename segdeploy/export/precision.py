"""The FP16 graph: `to_fp16` retypes an FP32 graph, so that TensorRT 10 and 11 build it by the same call.

TensorRT 11 has no FP16 flag: precision is what the graph's types say (strong typing). Weights and computation become
FP16 where a probe on real images shows that they stay well inside its range; the rest stays FP32, and every decision is
told with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from segdeploy.errors import ExportError, first_line
from segdeploy.export.decisions import Decision
from segdeploy.export.fp16_range import measure
from segdeploy.export.graph import GraphView, infer
from segdeploy.export.precision_rules import find_fp32
from segdeploy.export.precision_types import Slots, retype, save_casts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.export.fp16_range import Ranges

__all__ = ["Decision", "to_fp16"]

IN_RANGE = "in range"
FEWER_CASTS = "fewer casts than in FP16"


def to_fp16(
    model: onnx.ModelProto, images: Iterable[NDArray[np.uint8]], keep_fp32: Sequence[str] = ()
) -> tuple[onnx.ModelProto, tuple[Decision, ...]]:
    """The typed graph, and for each node that computes with floats its precision, range and reason, in graph order.

    Inputs, outputs, integers (shape arithmetic, class ids), the metadata and the names of nodes stay as they are.

    Args:
        model: FP32, one input, its nodes topologically sorted.
        images: calibration images (N, H, W, 3) uint8 at a size that the graph takes; each is run once.
        keep_fp32: shell-style patterns of node names that stay in FP32.

    Raises:
        ExportError: a graph with graphs inside (If, Loop, Scan) or of wrong types, no images, or a result that
            ONNX's checker refuses.
    """
    view = GraphView(model)
    ranges = measure(view, images)
    slots = Slots(view)
    reasons = find_fp32(slots, ranges, keep_fp32)
    reasons |= dict.fromkeys(save_casts(slots, reasons), FEWER_CASTS)
    typed = retype(slots, reasons)
    check(typed)
    return typed, tuple(_decide(slots, place, reasons.get(place), ranges) for place in slots.computing)


def check(model: onnx.ModelProto) -> None:
    """The full check of ONNX, and strict inference of types and shapes; ExportError where either refuses."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise ExportError(f"ONNX's checker refuses the graph: {first_line(e)[:300]}") from e
    infer(model)


def _decide(slots: Slots, place: int, reason: str | None, ranges: Ranges) -> Decision:
    node = slots.view.nodes[place]
    seen = [ranges.largest[name] for name in node.output if name in ranges.largest]
    precision = "fp16" if reason is None else "fp32"
    return Decision(node.name, node.op_type, precision, max(seen, default=None), reason or IN_RANGE)
