"""The FP32 graph for CPUs, which run out of arithmetic long before they run out of operators.

Both rules are exact but for the order of adding, and save more than half of what a decoder's widest convolutions
multiply. A GPU is not short of products, and would pay for the further operators; so its graph stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from segdeploy.export.cpu_doubled import split_doubled
from segdeploy.export.cpu_joined import split_joined
from segdeploy.export.cpu_patch import Patch

if TYPE_CHECKING:
    from collections.abc import Callable

RULES: tuple[Callable[[Patch], int], ...] = (split_doubled, split_joined)


def for_cpu(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which every place that a rule knows is rewritten; None where there is none."""
    patch = Patch(model)
    if not sum(rule(patch) for rule in RULES):
        return None
    made = patch.finish()
    onnx.checker.check_model(made, full_check=True)
    return made
