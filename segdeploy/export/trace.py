"""torch's exporter, and what it needs help with."""

from __future__ import annotations

import gc
import io
import logging
import warnings
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxscript import ir
from onnxscript.optimizer import fold_constants

from segdeploy.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.onnx import ONNXProgram

OPSET = 20  # the newest that every TensorRT 10 and 11 parses
_FUSED_FAULTS = ("only 4D query, key, and value", "Cannot view a tensor")
"""What torch says of attention as one operation that it cannot export: of more dimensions than four, or on views whose
strides hang on a free dimension."""
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
_NEARLY = 1e-4


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
    with _quiet(), _without_collection():
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
            optimize=False,
        )
        assert program is not None
        fold_constants(program.model)  # what is computed from constants alone becomes one
        _keep_small_numbers(program.model.graph)
        program.optimize()
    return program


def _keep_small_numbers(graph: ir.Graph) -> None:
    """Make a vector of one number of each scalar that is nearly, and not quite, without effect on a tensor.

    onnxscript's optimiser takes a scalar up to 1e-8 for 0 and one within 1e-5 of 1 for 1, and drops the node: what is
    x / (norm + 1e-12) in torch would be a division by zero. It leaves vectors alone. Where the other operand is a
    scalar too, which a sum over batch and image would be, a vector would change the shape: those stay as they are.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        neutral = _NEUTRAL.get(node.op_type) if not node.domain else None
        if neutral is None or len(node.inputs) != 2:
            continue
        for place, other in ((0, 1), (1, 0)):
            number, shape = _scalar(node.inputs[place]), getattr(node.inputs[other], "shape", None)
            if number is None or not 0 < abs(number - neutral) < _NEARLY or (shape is not None and not len(shape)):
                continue
            kept = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(number.reshape(1)))])
            assert node.graph is not None
            node.graph.insert_before(node, kept)
            node.replace_input_with(place, kept.outputs[0])


def _scalar(value: ir.Value | None) -> NDArray[np.floating[Any]] | None:
    """The number of a constant or of a weight, shape (); None for whatever else."""
    held = ir.convenience.get_const_tensor(value) if value is not None else None
    if held is None:
        return None
    number = held.numpy()
    return number if number.shape == () and np.issubdtype(number.dtype, np.floating) else None


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
def _quiet() -> Iterator[None]:
    """Without what torch writes to standard error: before the error it prints the graph that it has so far, twice."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


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
