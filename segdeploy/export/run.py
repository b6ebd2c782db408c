"""The whole export: a run folder to a verified bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy import bundle
from segdeploy.bundle import Bundle, BundleFile
from segdeploy.checkpoint import load_weights
from segdeploy.config.load import read_run_config
from segdeploy.config.schema import Export
from segdeploy.data.table import read_table
from segdeploy.environment import versions
from segdeploy.errors import ConfigError, ExportError, GateError, ModelError
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.export.verify import AtSize, Parity, compare_at, verify
from segdeploy.files import is_filled, new_folder
from segdeploy.model.segmenter import build, of_fixed_size
from segdeploy.run_folder import find_model
from segdeploy.runtime.runner import RunnerOptions, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.data.table import Sample
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.model.spec import ModelSpec

ONNX_FILE = "model.onnx"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote, and how it compared."""

    bundle: Bundle
    parity: tuple[Parity, ...]
    elsewhere: AtSize | None = None
    """The comparison at a size that is not the model's; None: none was made."""


def export_run(
    run: Path,
    output: Path,
    *,
    verify_table: Path | None = None,
    limits: Export | None = None,
    dynamic_size: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ExportResult:
    """Write the bundle `output` from a run folder; an older bundle there is replaced once the new one is whole.

    Args:
        run: a folder of `segdeploy train`, or the model folder in it.
        output: the bundle's folder.
        verify_table: a table with masks on which torch and onnxruntime are compared.
        limits: what the comparison must keep.
        dynamic_size: leave height and width of the graph free, beside the batch. The comparison then also looks at
            one other size; the ONNX file's `about` tells of it.
        progress: called with (done, total) during the comparison.

    Raises:
        ModelError, ExportError: the run cannot be opened, the graph not be written, or `output` is taken; or
            encoder or decoder do not promise to work with free height and width.
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
        if dynamic_size:
            _check_dynamic(segmenter, source.spec)
        about = export_onnx(segmenter, source.spec, folder / ONNX_FILE, dynamic_size=dynamic_size)
        shutil.copy2(source.path / weights.file, folder / bundle.WEIGHTS_FILE)
        kept = bundle.artifact(folder, bundle.WEIGHTS_FILE, "weights", "fp32", trained)
        graph = bundle.artifact(folder, ONNX_FILE, "onnx", "fp32", about)
        size = _other_size(segmenter, source.spec) if dynamic_size else None
        made = Bundle(folder, source.spec, (kept, graph))
        parity, elsewhere = _verify(made, samples, limits, size, progress) if samples else ([], None)
        if elsewhere is not None:
            graph = graph.model_copy(update={"about": about | {"verified_size": elsewhere.to_dict()}})
        content = BundleFile(
            spec=source.spec,
            artifacts=(kept, graph),
            limits=limits.model_dump(mode="json"),
            benchmark=run_config.benchmark.model_dump(mode="json") if run_config else {},
            verification=tuple(p.to_dict() for p in parity),
            created_with=versions(),
        )
        bundle.write_bundle(folder, content)
    result = ExportResult(bundle.open_model(output), tuple(parity), elsewhere)
    broken = [f"batch {p.batch_size}: {reason}" for p in parity for reason in p.reasons]
    if elsewhere is not None and not elsewhere.passed:
        share = f"{elsewhere.agreement:.5%} of the pixels agree, fewer than {limits.min_agreement:.3%}"
        broken.append(f"at {elsewhere.width}x{elsewhere.height}: {share}")
    if broken:
        raise GateError(f"{output}: onnxruntime is not as accurate as torch: {'; '.join(broken)}")
    return result


def _check_dynamic(segmenter: Segmenter, spec: ModelSpec) -> None:
    fixed = [f"{kind} {getattr(spec, kind)}" for kind in of_fixed_size(segmenter)]
    if fixed:
        raise ExportError(
            f"{' and '.join(fixed)}: no promise to work with free height and width (dynamic_size); "
            "export with --dynamic batch, or train a model whose encoder and decoder both give it"
        )


def _other_size(segmenter: Segmenter, spec: ModelSpec) -> tuple[int, int]:
    """Larger than the model's by a half and by a quarter: other proportions, which show sides that were mixed up."""
    step = getattr(segmenter.encoder, "size_multiple", 1)
    height, width = spec.preprocessing.height, spec.preprocessing.width
    return height + max(1, height // 2 // step) * step, width + max(1, width // 4 // step) * step


def _verify(
    made: Bundle,
    samples: list[Sample],
    limits: Export,
    size: tuple[int, int] | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Parity], AtSize | None]:
    options = RunnerOptions(device="cpu")
    with open_runner(made, "torch", options) as torch_runner, open_runner(made, "onnxruntime", options) as runner:
        parity = verify(torch_runner, runner, samples, made.spec, limits, progress)
        if size is None:
            return parity, None
        return parity, compare_at(torch_runner, runner, samples[:2], made.spec, size, limits)


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
