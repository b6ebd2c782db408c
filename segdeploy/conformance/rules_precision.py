"""Rules about the graphs of fewer bits: they can be made, are sound, build, and keep the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from segdeploy.conformance.rule import BrokenError, Found, Rule
from segdeploy.conformance.rules_deploy import build_with_rtx
from segdeploy.data.natural import natural_images
from segdeploy.errors import ExportError, MissingPartError
from segdeploy.export.graph import session_of
from segdeploy.export.graphs import rest_in_fp16
from segdeploy.export.half import open_half
from segdeploy.export.lint import lint
from segdeploy.export.precision import to_fp16
from segdeploy.export.quantize import quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segdeploy.conformance.subject import Subject

FP16_AGREEMENT = 0.99
"""Share of equal labels. Random weights have many near-ties: a trained model agrees on far more."""
INT8_AGREEMENT = 0.6
"""Narrow networks of random weights keep 70 % (mobilenetv2), wide ones 95; what eight bits destroy keeps a guess."""
_IMAGES = 4


def check_fp16(subject: Subject) -> Found:
    """The typed graph, with every result rounded to FP16 as a GPU does."""
    model, images, keep_fp32 = _material(subject)
    try:
        typed, decisions = to_fp16(model, images, keep_fp32)
    except ExportError as e:
        raise BrokenError(str(e)) from e
    built = _check_for_tensorrt(subject, typed, "fp16")
    session = open_half(typed)
    found = np.concatenate([session.run(["mask"], {"image": image})[0] for image in images])
    share = _agreement(model, images, found, FP16_AGREEMENT, "FP16")
    kept = sum(d.precision == "fp32" for d in decisions)
    return Found(
        f"{share:.2%} of the labels agree, {kept} of {len(decisions)} nodes in FP32{built}", {"agreement": share}
    )


def check_int8(subject: Subject) -> Found:
    """Both INT8 graphs; that for TensorRT is linted and built, both are run by onnxruntime."""
    model, images, keep_fp32 = _material(subject)
    try:
        made = quantize(model, images, min_agreement=0)
        graphs = {"cpu": made["cpu"].model, "tensorrt": rest_in_fp16(made["tensorrt"], images, keep_fp32)[0]}
    except ExportError as e:
        raise BrokenError(str(e)) from e
    built = _check_for_tensorrt(subject, graphs["tensorrt"], "int8")
    shares = {}
    for target, graph in graphs.items():
        onnx.checker.check_model(graph, full_check=True)
        session = session_of(graph)
        found = np.concatenate([session.run(["mask"], {"image": image})[0] for image in images])
        shares[target] = _agreement(model, images, found, INT8_AGREEMENT, f"INT8 for {target}")
    said = ", ".join(f"{target} {share:.2%}" for target, share in shares.items())
    return Found(f"labels that agree: {said}{built}", {"agreement": shares})


def _material(subject: Subject) -> tuple[onnx.ModelProto, list[NDArray[np.uint8]], Sequence[str]]:
    decoder = subject.part.plugin if subject.part.kind == "decoder" else subject.partner[0].plugin
    images = natural_images(_IMAGES, subject.sizes[-1])
    return onnx.load_from_string(subject.graph), [image[None] for image in images], decoder.keep_fp32


def _check_for_tensorrt(subject: Subject, model: onnx.ModelProto, precision: str) -> str:
    """What TensorRT will say and says; the engine's size in words, empty where there is no TensorRT."""
    refused = [finding for finding in lint(model) if finding.severity == "error"]
    if refused:
        raise BrokenError(f"{precision}: {refused[0]}", findings=[str(f) for f in refused])
    try:
        _, size = build_with_rtx(subject, model.SerializeToString(), precision)
    except MissingPartError:
        return ""
    return f", an engine of {size / 2**20:.1f} MiB"


def _agreement(
    model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]], found: NDArray[np.uint8], least: float, what: str
) -> float:
    session = session_of(model)
    expected = np.concatenate([session.run(["mask"], {"image": image})[0] for image in images])
    share = float((found == expected).mean())
    if share < least:
        raise BrokenError(f"{what}: {share:.2%} of the labels agree with the FP32 graph's", agreement=share)
    return share


RULES = (
    Rule(
        name="fp16",
        kinds=("encoder", "decoder"),
        sentence="The FP16 graph passes ONNX's checker and the TensorRT lint, builds, and keeps the labels with every "
        "result rounded to FP16.",
        fix="segdeploy debug diff model.onnx model.fp16.onnx shows the first node whose values part; scale it, or name "
        "it in the decoder's keep_fp32.",
        check=check_fp16,
        needs=("tensorrt-build",),
    ),
    Rule(
        name="int8",
        kinds=("encoder", "decoder"),
        sentence="The INT8 graphs for the CPU and for TensorRT pass ONNX's checker and keep most labels; the latter "
        "passes the lint and builds.",
        fix="Values that differ by orders of magnitude between channels lose their small ones in eight bits: normalise "
        "before you add or join them.",
        check=check_int8,
        needs=("fp16",),
    ),
)
