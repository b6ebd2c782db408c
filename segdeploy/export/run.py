"""The whole export: a run folder to a verified bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx
from pydantic import ValidationError

from segdeploy import bundle
from segdeploy.bundle import Bundle, BundleFile
from segdeploy.checkpoint import load_weights
from segdeploy.config.export import Export
from segdeploy.config.load import read_run_config
from segdeploy.data.table import read_table
from segdeploy.environment import versions
from segdeploy.errors import ConfigError, ExportError, GateError, ModelError
from segdeploy.export.graphs import ONNX_FILE, find_images, write_graphs
from segdeploy.export.half import HalfRunner
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.export.verify import AtSize, Parity, compare_at, find_truth, verify
from segdeploy.files import is_filled, new_folder
from segdeploy.model.segmenter import build, of_fixed_size
from segdeploy.run_folder import CARD_FILE, find_model, find_run
from segdeploy.runtime.ort_providers import CPU, Provider
from segdeploy.runtime.ort_runner import OrtRunner
from segdeploy.runtime.runner import RunnerOptions, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from segdeploy.bundle import Artifact
    from segdeploy.data.table import Sample
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.runner import Runner

    Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote, and how it compared."""

    bundle: Bundle
    parity: tuple[Parity, ...]
    elsewhere: Mapping[str, AtSize] = field(default_factory=dict)
    """By the names of FP32 graphs, the comparison at a size that is not the model's; empty: none was made."""


def export_run(
    run: Path,
    output: Path,
    *,
    settings: Export | None = None,
    verify_table: Path | None = None,
    calibration_table: Path | None = None,
    dynamic_size: bool = False,
    engine_for: str | None = None,
    progress: Progress = lambda what, done, total: None,
) -> ExportResult:
    """Write the bundle `output` from a run folder; an older bundle there is replaced once the new one is whole.

    Args:
        run: a folder of `segdeploy train`, or the model folder in it.
        output: the bundle's folder.
        settings: precisions, and what each graph must keep; None: as the run's configuration says.
        verify_table: a table with masks on which torch and onnxruntime are compared.
        calibration_table: images on which FP16's and INT8's ranges are measured; None: the run's training images.
        dynamic_size: leave height and width of the graphs free, beside the batch. The comparison then also looks at
            one other size; the `about` of each FP32 graph tells of it.
        engine_for: an engine will be made of it, with TensorRT for RTX ("RTX") or a version of TensorRT: what that
            will not build is refused now.
        progress: called with (what, done, total).

    Raises:
        ModelError, ExportError: the run cannot be opened, a graph not be written, or `output` is taken; or
            encoder or decoder do not promise to work with free height and width.
        DataError: a table cannot be read, or there are no images to calibrate with.
        GateError: a limit was not kept; the bundle is written and says so.
    """
    source = bundle.open_model(run)
    weights = source.find("weights")
    if weights is None or find_model(run) is None:
        raise ModelError(f"{run}: expected a run folder of segdeploy train")
    run_config = read_run_config(run)
    settings = settings or (run_config.export if run_config else Export())
    samples = read_table(verify_table, source.spec.image_column, source.spec.mask_column) if verify_table else []
    given = read_table(calibration_table, source.spec.image_column, None, None) if calibration_table else None
    images = find_images(run, source.spec, settings, given)
    _check_free(output)
    with new_folder(output) as folder:
        segmenter = build(source.spec)
        trained = load_weights(source.path / weights.file, segmenter)
        if dynamic_size:
            _check_dynamic(segmenter, source.spec)
        progress("writing the graph", 0, 1)
        about = export_onnx(segmenter, source.spec, folder / ONNX_FILE, dynamic_size=dynamic_size)
        if dynamic_size:
            about["size_multiple"] = int(getattr(segmenter.encoder, "size_multiple", 1))
        shutil.copy2(source.path / weights.file, folder / bundle.WEIGHTS_FILE)
        kept = bundle.artifact(folder, bundle.WEIGHTS_FILE, "weights", "fp32", trained)
        graph = bundle.artifact(folder, ONNX_FILE, "onnx", "fp32", about)
        graphs = [graph, *write_graphs(folder, source.spec, about, settings, images, progress, engine_for)]
        size = _other_size(segmenter, source.spec) if dynamic_size else None
        made = Bundle(folder, source.spec, (kept, *graphs))
        parity, elsewhere = _verify(made, samples, settings, size, progress) if samples else ([], {})
        graphs = [_with_size(graph, elsewhere.get(graph.file)) for graph in graphs]
        content = BundleFile(
            spec=source.spec,
            artifacts=(kept, *graphs),
            limits=settings.model_dump(mode="json"),
            benchmark=run_config.benchmark.model_dump(mode="json") if run_config else {},
            verification=tuple(p.to_dict() for p in parity),
            created_with=versions(),
        )
        if (held := find_run(run)) is not None and (card := held / CARD_FILE).is_file():
            shutil.copy2(card, folder / CARD_FILE)
        bundle.write_bundle(folder, content)
    result = ExportResult(bundle.open_model(output), tuple(parity), elsewhere)
    broken = [f"{p.name}: {reason}" for p in parity for reason in p.reasons]
    for file, other in elsewhere.items():
        if not other.passed:
            share = f"{other.agreement:.5%} of the pixels agree, fewer than {settings.min_agreement:.3%}"
            broken.append(f"{file} at {other.width}x{other.height}: {share}")
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


def _with_size(graph: Artifact, other: AtSize | None) -> Artifact:
    """The graph, with what is known of it at a size that is not the model's."""
    return graph.model_copy(update={"about": graph.about | {"verified_size": other.to_dict()}}) if other else graph


def _other_size(segmenter: Segmenter, spec: ModelSpec) -> tuple[int, int]:
    """Larger than the model's by a half and by a quarter: other proportions, which show sides that were mixed up."""
    step = getattr(segmenter.encoder, "size_multiple", 1)
    height, width = spec.preprocessing.height, spec.preprocessing.width
    return height + max(1, height // 2 // step) * step, width + max(1, width // 4 // step) * step


def _verify(
    made: Bundle, samples: Sequence[Sample], settings: Export, size: tuple[int, int] | None, progress: Progress
) -> tuple[list[Parity], dict[str, AtSize]]:
    """Every graph on the CPU against torch: FP32 at all batch sizes and at `size`, the others at the first."""
    parity = []
    elsewhere = {}
    with open_runner(made, "torch", RunnerOptions(device="cpu")) as torch_runner:
        truth = find_truth(torch_runner, samples, made.spec, partial(progress, "verifying: torch"))
        for graph in (a for a in made.artifacts if a.kind == "onnx"):
            batches = settings.verify_batches if graph.precision == "fp32" else settings.verify_batches[:1]
            limits = settings.limits(graph.precision)
            step = partial(progress, f"verifying: {graph.file}")
            with _runner(made.path / graph.file, graph.precision) as runner:
                parity += [verify(truth, runner, limits, batch, graph.target, step) for batch in batches]
                if size is not None and graph.precision == "fp32":
                    elsewhere[graph.file] = compare_at(torch_runner, runner, samples[:2], made.spec, size, limits)
    return parity, elsewhere


def _runner(path: Path, precision: str) -> Runner:
    """onnxruntime on the CPU; it would compute FP16 in FP32, so such a graph is run as a GPU rounds it."""
    if precision == "fp16":
        return HalfRunner(onnx.load(path))
    return OrtRunner(path, Provider(CPU), RunnerOptions(device="cpu", precision=precision))


def _check_free(output: Path) -> None:
    if is_filled(output) and not (output / bundle.BUNDLE_FILE).is_file():
        raise ExportError(f"{output}: is there already and is no bundle; choose another -o")


def export_settings(run: Path, changes: dict[str, Any]) -> Export:
    """The `export` section of the run's configuration, with the values of `changes` that are not None.

    A limit among them is that of every precision.

    Raises:
        ConfigError: a value out of bounds.
    """
    config = read_run_config(run)
    given = {k: v for k, v in changes.items() if v is not None}
    values = (config.export if config else Export()).model_dump()
    for limits in (values["fp16"], values["int8"]):
        limits |= {k: v for k, v in given.items() if k in limits}
    try:
        return Export.model_validate({**values, **given})
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise ConfigError(f"--{str(first['loc'][-1]).replace('_', '-')}: {first['msg']}, got {first['input']}") from e
