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
from segdeploy.export.engine_options import EngineOptions, Profile

if TYPE_CHECKING:
    from segdeploy.conformance.subject import Subject
    from segdeploy.runtime.engine_lock import EngineLock


def check_lint(subject: Subject) -> Found:
    """The exported graph against the table."""
    found = [str(finding) for finding in lint.lint(onnx.load_from_string(subject.graph))]
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise BrokenError("; ".join(found[:3]) + more, findings=found)
    return Found(f"{len(lint.TABLE)} rows")


def check_build(subject: Subject) -> Found:
    """The real parser and builder of TensorRT for RTX, which need no GPU: fixed shapes, then all that may be free."""
    try:
        lock, size = build_with_rtx(subject, subject.graph, profile=Profile(batch=(1, 1, 1)))
        if subject.free_graph is None:
            build_with_rtx(subject, subject.graph)
        else:
            heights, widths = (sorted(side) for side in zip(*subject.sizes, strict=True))
            sides = Profile(height=(heights[0], heights[1], heights[2]), width=(widths[0], widths[1], widths[2]))
            build_with_rtx(subject, subject.free_graph, profile=sides)
    except MissingPartError as e:
        raise SkippedError(str(e)) from e
    free = "batch, height and width" if subject.free_graph is not None else "batch"
    return Found(f"{lock.built_by}, also with free {free}, {lock.status}", {"version": lock.version, "bytes": size})


def build_with_rtx(
    subject: Subject, graph: bytes, precision: str = "fp32", profile: Profile | None = None
) -> tuple[EngineLock, int]:
    """The lock and size in bytes of an engine of `graph`, for 1 to 8 images of its own size unless `profile` says more.

    Raises:
        BrokenError: the parser or the builder refuses it; MissingPartError: TensorRT for RTX is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph)
        spec, options = subject.spec(subject.sizes[-1]), EngineOptions(flavour="rtx", profiles=(profile or Profile(),))
        try:
            lock = build_engine(path, spec, Path(folder), precision=precision, options=options)
        except ExportError as e:
            raise BrokenError(str(e).partition(": ")[2]) from e
        return lock, (Path(folder) / "model.engine").stat().st_size


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
        sentence="TensorRT for RTX parses the exported graph and builds engines of it, for fixed and for free shapes.",
        fix="Replace the operator that the message names by others.",
        check=check_build,
        needs=("tensorrt-lint", "dynamic-size"),
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
