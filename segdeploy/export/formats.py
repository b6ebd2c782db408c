"""A trained model in the format that somebody else's program reads: Ludwig's `export_model`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from segdeploy import bundle, run_folder
from segdeploy.checkpoint import load_weights
from segdeploy.errors import ExportError, ModelError, first_line
from segdeploy.export.run import export_run
from segdeploy.files import replacing
from segdeploy.model.segmenter import Deployed, Segmenter, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.model.spec import ModelSpec

Format = Literal["safetensors", "torch_export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROGRAM_FILE = "model.pt2"


def export_model(
    model: Path,
    output: Path,
    format: str = "safetensors",  # noqa: A002  (Ludwig's word)
    *,
    dataset: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `output` from a run or a model folder, or, but for "onnx", a bundle; returns what was written.

    Args:
        model: where the model is.
        output: a folder; with "torch_export" it may also be a file that ends in .pt2.
        format: "safetensors": the model folder, which segdeploy opens. "torch_export": a program for
            `torch.export.load`, uint8 images to uint8 class ids as in the ONNX file. "onnx": a bundle.
        dataset: a table with masks on which the ONNX file is compared with torch; None: it is not compared.
        progress: called with (done, total) during the comparison.

    Raises:
        ExportError: no such format, or see `export_run`; ModelError: no weights there; GateError: see `export_run`.
    """
    if format not in FORMATS:
        raise ExportError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if format == "onnx":

        def step(_: str, done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)

        return export_run(model, output, verify_table=dataset, progress=step).bundle.path
    if format == "safetensors":
        return save_model(model, output)
    opened = bundle.open_model(model)
    segmenter = build(opened.spec)
    load_weights(_weights(opened), segmenter)
    path = output if output.suffix == ".pt2" else output / PROGRAM_FILE
    export_program(segmenter, opened.spec, path)
    return path


def save_model(model: Path, output: Path) -> Path:
    """Copy what predicting, evaluating and exporting need into the folder `output`, model.json last.

    Raises:
        ModelError: no weights there.
    """
    opened = bundle.open_model(model)
    with replacing(output / run_folder.WEIGHTS_FILE) as part:
        shutil.copyfile(_weights(opened), part)
    for name in (run_folder.CONFIG_FILE, run_folder.METADATA_FILE):
        if (opened.path / name).is_file():
            with replacing(output / name) as part:
                shutil.copyfile(opened.path / name, part)
    with replacing(output / run_folder.SPEC_FILE) as part:
        part.write_text(opened.spec.to_json() + "\n", encoding="utf-8")
    return output


def export_program(segmenter: Segmenter, spec: ModelSpec, path: Path) -> None:
    """Write `path` for `torch.export.load`: uint8 (batch, H, W, 3) -> uint8 (batch, H, W), any batch.

    The ModelSpec is the extra file `segdeploy.spec`.

    Raises:
        ExportError: torch cannot trace the model.
    """
    module = Deployed(segmenter, spec.preprocessing).eval().cpu()
    example = torch.zeros((2, spec.preprocessing.height, spec.preprocessing.width, 3), dtype=torch.uint8)
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as e:  # torch.export's errors have no common base
        raise ExportError(
            f"{spec.encoder.name} + {spec.decoder.name}: torch cannot export it: {first_line(e)[:300]}"
        ) from e
    with replacing(path) as part, part.open("wb") as handle:  # a path would have to end in .pt2
        torch.export.save(program, handle, extra_files=bundle.spec_metadata(spec))


def _weights(opened: bundle.Bundle) -> Path:
    weights = opened.find("weights")
    if weights is None:
        raise ModelError(f"{opened.path}: holds no weights; expected a run folder or a bundle")
    return opened.path / weights.file
