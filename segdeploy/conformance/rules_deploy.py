"""Rules about the graph on its way to an engine: TensorRT's limits and FP16's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from segdeploy.conformance.rule import BrokenError, Found, Rule, SkippedError
from segdeploy.data.natural import natural_images
from segdeploy.errors import ExportError, MissingPartError
from segdeploy.export import fp16_range, lint
from segdeploy.export.engine import build_engine
from segdeploy.export.engine_options import EngineOptions

if TYPE_CHECKING:
    from segdeploy.conformance.subject import Subject


def check_lint(subject: Subject) -> Found:
    """The exported graph against the table."""
    found = [str(finding) for finding in lint.lint(onnx.load_from_string(subject.graph))]
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise BrokenError("; ".join(found[:3]) + more, findings=found)
    return Found(f"{len(lint.TABLE)} rows")


def check_build(subject: Subject) -> Found:
    """The real parser and builder of TensorRT for RTX, which need no GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(subject.graph)
        try:
            spec, options = subject.spec(subject.sizes[-1]), EngineOptions(flavour="rtx")
            lock = build_engine(path, spec, Path(folder), options=options)
        except MissingPartError as e:
            raise SkippedError(str(e)) from e
        except ExportError as e:
            raise BrokenError(str(e).partition(": ")[2]) from e
        size = (Path(folder) / "model.engine").stat().st_size
    said = f"TensorRT for RTX {lock.version}, {lock.status}"
    return Found(said, {"version": lock.version, "bytes": size})


def check_range(subject: Subject) -> Found:
    """The exported graph, run in FP32 on pictures like photographs."""
    decoder = subject.part.plugin if subject.part.kind == "decoder" else subject.partner[0].plugin
    images = natural_images(3, subject.sizes[-1])
    found = fp16_range.probe(subject.graph, images, decoder.keep_fp32)
    beyond, sums = found.beyond, found.sums
    if beyond:
        more = f"; and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        raise BrokenError(
            f"above {fp16_range.SAFE:g}: {'; '.join(map(str, beyond[:3]))}{more}", nodes=[e.node for e in beyond]
        )
    said = f", {len(sums)} reductions need FP32" if sums else ""
    return Found(f"largest value {found.largest:.3g}{said}", {"largest": found.largest, "sums": [s.node for s in sums]})


RULES = (
    Rule(
        name="tensorrt-lint",
        kinds=("encoder", "decoder"),
        sentence="The exported graph holds nothing that TensorRT refuses, or takes and does badly.",
        fix="Each finding says what to do in its place.",
        check=check_lint,
        needs=("export",),
    ),
    Rule(
        name="tensorrt-build",
        kinds=("encoder", "decoder"),
        sentence="TensorRT for RTX parses the exported graph and builds an engine of it.",
        fix="Replace the operator that the message names by others.",
        check=check_build,
        needs=("tensorrt-lint",),
    ),
    Rule(
        name="fp16-range",
        kinds=("encoder", "decoder"),
        sentence=f"On pictures, no weight and no map passes {fp16_range.SAFE:g}, a sixth of what FP16 can hold.",
        fix="Scale before you multiply (attention: scale the query first), normalise earlier, or name the "
        "node in the decoder's keep_fp32.",
        check=check_range,
        needs=("export",),
    ),
)
