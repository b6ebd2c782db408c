"""torch's exporter, and what it needs help with."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from segdeploy.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn
    from torch.onnx import ONNXProgram

OPSET = 20  # the newest that every TensorRT 10 and 11 parses
_FUSED_FAULTS = ("only 4D query, key, and value", "Cannot view a tensor")
"""What torch says of attention as one operation that it cannot export: of more dimensions than four, or on views whose
strides hang on a free dimension."""


def trace(
    module: nn.Module, example: Tensor, free: Mapping[int, Any], outputs: Sequence[str] | None = None
) -> ONNXProgram:
    """A module with the one input `image` as ONNX, opset 20.

    Attention that torch cannot export as one operation is written out as products and a softmax, the same function.

    Args:
        module: in the mode that is to be exported.
        example: its input.
        free: dimensions of the input that stay free, by their names or `torch.export.Dim`.
        outputs: names; None: as torch has it.

    Raises:
        Exception: whatever torch raises; its errors have no common base, see `reason`.
    """
    try:
        return _export(module, example, free, outputs)
    except Exception as e:
        if not any(fault in reason(e) for fault in _FUSED_FAULTS):
            raise
        with _written_out_attention(module) as found:
            if not found:
                raise
            return _export(module, example, free, outputs)


def reason(error: BaseException) -> str:
    """The first line of what began it: the exporter wraps it in words about its own steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _export(module: nn.Module, example: Tensor, free: Mapping[int, Any], outputs: Sequence[str] | None) -> ONNXProgram:
    with warnings.catch_warnings(), _without_collection():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["image"],
            output_names=outputs,
            dynamic_shapes={"image": dict(free)},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program


@contextmanager
def _written_out_attention(module: nn.Module) -> Iterator[bool]:
    """Inside, timm's attention does not call torch's fused operation; whether there is any."""
    fused: list[Any] = [m for m in module.modules() if getattr(m, "fused_attn", False)]
    for m in fused:
        m.fused_attn = False
    try:
        yield bool(fused)
    finally:
        for m in fused:
            m.fused_attn = True


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage collection inside: tracing keeps most of what it makes, and searching that takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
