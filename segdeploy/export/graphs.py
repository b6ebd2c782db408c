"""The graphs beside the FP32 one: its form for CPUs, and those of fewer bits, with a table of every node."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx

from segdeploy import bundle
from segdeploy.data.natural import natural_images
from segdeploy.errors import DataError
from segdeploy.export.calibration import calibration_images, training_samples
from segdeploy.export.cpu import proven_for_cpu
from segdeploy.export.decisions import decisions_json
from segdeploy.export.lint import check_graph
from segdeploy.export.precision import to_fp16
from segdeploy.export.quantize import quantize
from segdeploy.files import replacing, write_json
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.bundle import Artifact
    from segdeploy.config.export import Export
    from segdeploy.data.table import Sample
    from segdeploy.export.decisions import Decision
    from segdeploy.export.quantize import Quantized
    from segdeploy.model.spec import ModelSpec

    Images = Sequence[NDArray[np.uint8]]

log = logging.getLogger(__name__)

ONNX_FILE = "model.onnx"
CPU_FILE = "model.cpu.onnx"
FP16_FILE = "model.fp16.onnx"
INT8_FILES = {"cpu": "model.int8-cpu.onnx", "tensorrt": "model.int8-trt.onnx"}
_GENERATED = 4


def find_images(run: Path, spec: ModelSpec, settings: Export, samples: Sequence[Sample] | None) -> Images:
    """Pictures on which ranges are measured: of `samples`, else of the run's training table; none for FP32 alone.

    FP16 only needs to know what is large, and takes generated pictures, with a warning, where a run has no images.

    Raises:
        DataError: INT8 is asked for, and there are none.
    """
    if not {"fp16", "int8"}.intersection(settings.precisions):
        return ()
    try:
        return calibration_images(samples or training_samples(run, spec), spec, settings.calibration_images)
    except DataError as e:
        if "int8" in settings.precisions or samples is not None:
            raise
        log.warning("%s; FP16's ranges are measured on generated pictures", e)
        size = spec.preprocessing.height, spec.preprocessing.width
        return [picture[None] for picture in natural_images(_GENERATED, size)]


def write_graphs(
    folder: Path,
    spec: ModelSpec,
    about: dict[str, Any],
    settings: Export,
    images: Images,
    progress: Callable[[str, int, int], None],
    engine_for: str | None = None,
) -> list[Artifact]:
    """Write what `settings.precisions` asks for beside `model.onnx` in `folder`; `about` is what is said of that.

    Where a CPU computes the same with fewer products, there is a `model.cpu.onnx` too, see `cpu.proven_for_cpu`.
    Every graph that TensorRT may get is held against the lint; `engine_for` says for whom, see `lint.check_graph`.
    """
    made: list[Artifact] = []
    model = onnx.load(folder / ONNX_FILE)
    check_graph(model, "fp32", engine_for)
    size = spec.preprocessing.height, spec.preprocessing.width
    if (light := proven_for_cpu(model, size, settings.limits("fp32").min_agreement)) is not None:
        made.append(_write(light, folder, CPU_FILE, "fp32", "cpu", about))
    about = about | {"calibration_images": len(images)}
    keep_fp32 = registry.decoder(spec.decoder.name).keep_fp32
    if "fp16" in settings.precisions:
        progress("FP16", 0, 1)
        typed, decisions = to_fp16(model, images, keep_fp32)
        check_graph(typed, "fp16", engine_for)
        made.append(_write(typed, folder, FP16_FILE, "fp16", "", about))
        made.append(_write_decisions(decisions, folder, "fp16", ""))
    if "int8" in settings.precisions:
        progress("INT8", 0, 1)
        about = about | {"calibration": settings.int8.method}
        graphs = quantize(
            model,
            images,
            method=settings.int8.method,
            min_agreement=settings.int8.leave_out_below,
            keep_fp32=keep_fp32,
            progress=partial(progress, "INT8: calibration"),
        )
        for target, found in graphs.items():
            typed, decisions = found.model, found.decisions
            if target == "tensorrt":
                typed, decisions = rest_in_fp16(found, images, keep_fp32)
                check_graph(typed, "int8", engine_for)
            made.append(_write(typed, folder, INT8_FILES[target], "int8", target, about))
            made.append(_write_decisions(decisions, folder, "int8", target))
    return made


def rest_in_fp16(
    found: Quantized, images: Images, keep_fp32: Sequence[str]
) -> tuple[onnx.ModelProto, tuple[Decision, ...]]:
    """What is no integer becomes FP16 where that is safe: with strong typing, TensorRT would compute it in FP32."""
    typed, decisions = to_fp16(found.model, images, keep_fp32)
    floats = {d.node: d for d in decisions}
    return typed, tuple(d if d.precision == "int8" else floats.get(d.node, d) for d in found.decisions)


def _write(
    model: onnx.ModelProto, folder: Path, name: str, precision: str, target: str, about: dict[str, Any]
) -> Artifact:
    for key, value in (("segdeploy.precision", precision), ("segdeploy.target", target)):
        model.metadata_props.add(key=key, value=value)  # a file that is taken by itself still says what it is
    with replacing(folder / name) as part:
        part.write_bytes(model.SerializeToString())
    return bundle.artifact(folder, name, "onnx", precision, about, target)


def _write_decisions(decisions: Sequence[Decision], folder: Path, precision: str, target: str) -> Artifact:
    name = f"decisions.{precision}{f'-{target}' if target else ''}.json"
    write_json(folder / name, decisions_json(decisions))
    return bundle.artifact(folder, name, "decisions", precision, None, target)
