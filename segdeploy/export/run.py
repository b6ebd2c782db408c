"""The whole export: a run folder to a verified bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy import bundle
from segdeploy.bundle import Artifact, Bundle, BundleFile
from segdeploy.checkpoint import load_weights
from segdeploy.config.load import read_run_config
from segdeploy.config.schema import Export
from segdeploy.data.table import read_table
from segdeploy.environment import versions
from segdeploy.errors import ConfigError, ExportError, GateError, ModelError
from segdeploy.export.engine import ENGINE_FILE, build_engine
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.export.verify import Parity, verify
from segdeploy.files import is_filled, new_folder
from segdeploy.model.segmenter import build
from segdeploy.run_folder import find_model
from segdeploy.runtime.runner import RunnerOptions, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.data.table import Sample

ONNX_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote, and how it compared."""

    bundle: Bundle
    parity: tuple[Parity, ...]


def export_run(
    run: Path,
    output: Path,
    *,
    verify_table: Path | None = None,
    limits: Export | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Write the bundle `output` from a run folder; an older bundle there is replaced once the new one is whole.

    Args:
        run: a folder of `segdeploy train`, or the model folder in it.
        output: the bundle's folder.
        verify_table: a table with masks on which torch and onnxruntime are compared.
        limits: what the comparison must keep.
        progress: called with (done, total) during the comparison.

    Raises:
        ModelError, ExportError: the run cannot be opened, the graph not be written, or `output` is taken.
        GateError: a limit was not kept; the bundle is written and says so.
    """
    source = bundle.open_model(run)
    weights = source.find("weights")
    if weights is None or find_model(run) is None:
        raise ModelError(f"{run}: expected a run folder of segdeploy train")
    run_config = read_run_config(run)
    limits = limits or (run_config.export if run_config else Export())
    samples = read_table(verify_table, source.spec.image_column, source.spec.mask_column) if verify_table else []
    _check_free(output)
    with new_folder(output) as folder:
        segmenter = build(source.spec)
        trained = load_weights(source.path / weights.file, segmenter)
        about = export_onnx(segmenter, source.spec, folder / ONNX_FILE)
        shutil.copy2(source.path / weights.file, folder / bundle.WEIGHTS_FILE)
        artifacts = (
            bundle.artifact(folder, bundle.WEIGHTS_FILE, "weights", "fp32", trained),
            bundle.artifact(folder, ONNX_FILE, "onnx", "fp32", about),
        )
        made = Bundle(folder, source.spec, artifacts)
        parity = _verify(made, samples, limits, progress) if samples else []
        content = BundleFile(
            spec=source.spec,
            artifacts=artifacts,
            limits=limits.model_dump(mode="json"),
            benchmark=run_config.benchmark.model_dump(mode="json") if run_config else {},
            verification=tuple(p.to_dict() for p in parity),
            created_with=versions(),
        )
        bundle.write_bundle(folder, content)
    result = ExportResult(bundle.open_model(output), tuple(parity))
    broken = [f"batch {p.batch_size}: {reason}" for p in parity for reason in p.reasons]
    if broken:
        raise GateError(f"{output}: onnxruntime is not as accurate as torch: {'; '.join(broken)}")
    return result


def _verify(
    made: Bundle, samples: list[Sample], limits: Export, progress: Callable[[int, int], None] | None
) -> list[Parity]:
    options = RunnerOptions(device="cpu")
    with open_runner(made, "torch", options) as torch_runner, open_runner(made, "onnxruntime", options) as runner:
        return verify(torch_runner, runner, samples, made.spec, limits, progress)


def add_engine(made: Bundle) -> Bundle:
    """Build the TensorRT for RTX engine of a bundle and list it there; on any error the bundle stays as it was.

    Raises:
        MissingPartError: TensorRT for RTX is not installed; ExportError: see `build_engine`.
    """
    source = made.find("onnx")
    if source is None or made.file is None:
        raise ExportError(f"{made.path}: expected a bundle with an ONNX file")
    lock = build_engine(made.path / source.file, made.spec, made.path)
    engine: Artifact = bundle.artifact(made.path, ENGINE_FILE, "engine", "fp32", lock)
    kept = tuple(a for a in made.artifacts if a.kind != "engine")
    return bundle.write_bundle(made.path, made.file.model_copy(update={"artifacts": (*kept, engine)}))


def _check_free(output: Path) -> None:
    if is_filled(output) and not (output / bundle.BUNDLE_FILE).is_file():
        raise ExportError(f"{output}: is there already and is no bundle; choose another -o")


def export_limits(run: Path, changes: dict[str, Any]) -> Export:
    """The `export` section of the run's configuration, with the values of `changes` that are not None."""
    config = read_run_config(run)
    given = {k: v for k, v in changes.items() if v is not None}
    try:
        return Export.model_validate({**(config.export if config else Export()).model_dump(), **given})
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise ConfigError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}, got {first['input']}") from e
