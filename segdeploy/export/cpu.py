"""The FP32 graph for CPUs, which run out of arithmetic long before they run out of operators.

Both rules are exact but for the order of adding, and save more than half of what a decoder's widest convolutions
multiply. A GPU is not short of products, and would pay for the further operators; so its graph stays as it is.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import onnx

from segdeploy.data.natural import natural_images
from segdeploy.errors import ExportError, SegdeployError, first_line
from segdeploy.export.cpu_doubled import split_doubled
from segdeploy.export.cpu_joined import split_joined
from segdeploy.export.cpu_patch import Patch
from segdeploy.export.graph import session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

RULES: tuple[Callable[[Patch], int], ...] = (split_doubled, split_joined)


def for_cpu(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which every place that a rule knows is rewritten; None where there is none."""
    patch = Patch(model)
    if not sum(rule(patch) for rule in RULES):
        return None
    made = patch.finish()
    onnx.checker.check_model(made, full_check=True)
    return made


_LEFT_OUT = "no graph for CPUs (model.cpu.onnx) is written, they run model.onnx: %s"
# What a rule may stumble over in a graph that nobody thought of, onnx find in what it made, and onnxruntime refuse.
_STUMBLES = (
    LookupError,
    TypeError,
    ValueError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    SegdeployError,
)


def proven_for_cpu(model: onnx.ModelProto, size: tuple[int, int], min_agreement: float) -> onnx.ModelProto | None:
    """`for_cpu`, where it gives the labels that `model` gives; else None, and a warning says why.

    It only saves time, so no graph of a plugin, however unusual, ends the export here; and it is what a CPU will run
    whether somebody verifies the bundle or not, so it is compared in any case.

    Args:
        model: image uint8 (N, H, W, 3) -> mask uint8 (N, H, W).
        size: height and width of the one picture that is compared.
        min_agreement: share of its pixels, at least, that must have the same class.
    """
    try:
        made = for_cpu(model)
        if made is None:
            return None
        image = natural_images(2, size)[:1]  # the last of them is white
        wanted, found = (_labels(m, image) for m in (model, made))
    except _STUMBLES as e:
        log.warning(_LEFT_OUT, f"{type(e).__name__}: {first_line(e)}")
        return None
    share = float((wanted == found).mean()) if wanted.shape == found.shape else 0.0
    if share < min_agreement:
        log.warning(_LEFT_OUT, f"{share:.5%} of the pixels agree, fewer than {min_agreement:.3%}")
        return None
    return made


def _labels(model: onnx.ModelProto, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    session = session_of(model, fast=True)
    try:
        labels: NDArray[np.uint8] = session.run(["mask"], {"image": image})[0]
    except Exception as e:  # onnxruntime's errors have no common base of their own
        raise ExportError(f"onnxruntime cannot run the graph: {first_line(e)[:300]}") from e
    return labels
