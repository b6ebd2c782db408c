"""`segdeploy build`: the engine of a bundle for the machine that it stands on, built, compared and written down.

No torch and no onnx: this is what runs on the target.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy import bundle
from segdeploy.config.export import Export
from segdeploy.data.natural import natural_images
from segdeploy.data.table import read_table
from segdeploy.errors import ExportError, GateError, MissingPartError, ModelError
from segdeploy.export.engine import check_options, is_target, make_engine, with_target, write_engine, write_lock
from segdeploy.export.engine_options import EngineOptions, Profile, check_multiple
from segdeploy.export.verify import find_truth, verify
from segdeploy.files import sha256
from segdeploy.runtime.engine_lock import ENGINE_FILE, LOCK_FILE, Here, check, parse_lock, read_lock
from segdeploy.runtime.gpu import current_gpu
from segdeploy.runtime.runner import RunnerOptions, open_runner
from segdeploy.runtime.trt import TENSORRT, pick_flavour

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.bundle import Artifact, Bundle
    from segdeploy.config.export import Limits
    from segdeploy.export.engine_options import Range
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.engine_lock import EngineLock
    from segdeploy.runtime.gpu import Gpu
    from segdeploy.runtime.runner import Runner
    from segdeploy.runtime.trt import Flavour

    Progress = Callable[[int, int], None]

_PICTURES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What shall be other than in the engine that is there; None: as it is, or as `EngineOptions` has it."""

    precision: str | None = None
    flavour: str | None = None
    batch: tuple[Range, ...] = ()
    """A profile for each."""
    height: Range | None = None
    width: Range | None = None
    workspace: int | None = None
    optimization_level: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool | None = None
    hardware_compatible: str | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What `segdeploy build` did. `reasons`: why the engine was built; empty: the one that was there fits."""

    bundle: Bundle
    lock: EngineLock
    reasons: tuple[str, ...]


def build(
    path: Path,
    changes: Changes,
    *,
    force: bool = False,
    verify_table: Path | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build the bundle's engine where it is missing or does not fit this machine, and compare its labels.

    The labels are compared with those of onnxruntime on the FP32 graph, where a GPU can run the engine.

    Args:
        path: the bundle's folder.
        changes: what is asked for.
        force: build although the engine fits.
        verify_table: pictures and masks to compare on; None: pictures that are made up.
        progress: called with (done, total).

    Raises:
        ModelError: not a bundle. ExportError, ConfigError: see `make_engine`.
        MissingPartError: no TensorRT that can build here.
        GateError: a limit was not kept; the bundle says so.
    """
    opened = bundle.open_model(path, unchecked=("engine",))
    flavour = pick_flavour(changes.flavour)
    lock, reasons = _present(opened)
    before = options_of(lock) if lock is not None else EngineOptions()
    precision = changes.precision or (lock.precision if lock is not None else lightest(opened))
    gpu = _target(flavour, changes)
    options = _changed(before, changes, flavour, gpu)
    if lock is not None:
        graph = opened.find("onnx", lock.precision, target="tensorrt")
        found = Here(
            flavour.version,
            gpu,
            engine_sha256=sha256(path / ENGINE_FILE),
            onnx_sha256=graph.sha256 if graph is not None else "",
        )
        if lock.flavour != flavour.name:
            reasons.append(f"built with {lock.flavour}, here is {flavour.title}")
        else:
            reasons += check(lock, found)
        if not reasons and (lock.precision, before) != (precision, options):
            reasons.append("something else is asked for than was built")
    if force:
        reasons.append("asked for")
    if reasons or lock is None:
        options = replace(options, flavour=flavour.word)
        opened = add_engine(opened, precision, options, progress)
        lock = read_lock(path / LOCK_FILE)
    else:
        write_lock(path, lock)  # the file beside the engine may be lost or damaged
    if reasons or not lock.version_compatible:  # else its code for the CPU came from elsewhere: nobody said to run it
        opened, lock = _verified(opened, lock, verify_table, progress)
    failed = [reason for record in lock.verification for reason in record["reasons"]]
    if failed:
        raise GateError(f"{path / ENGINE_FILE}: not as accurate as onnxruntime: {'; '.join(failed)}")
    return BuildResult(opened, lock, tuple(reasons))


def lightest(opened: Bundle) -> str:
    """The precision of the fewest bits of which TensorRT has a graph that did not fail its verification; else fp32."""
    records = opened.file.verification if opened.file is not None else ()
    failed = {r["precision"] for r in records if not r["passed"] and r.get("target") in ("", "tensorrt")}
    kept = (p for p in ("int8", "fp16") if p not in failed and opened.find("onnx", p, "tensorrt") is not None)
    return next(kept, "fp32")


def engine_target(flavour: str | None) -> str | None:
    """Who would build here, as the lint names it: "RTX" or a version; None where nothing can."""
    try:
        found = pick_flavour(flavour)
    except MissingPartError:
        return None
    return found.version if found.name == TENSORRT else "RTX"


def check_first(changes: Changes, spec: ModelSpec, *, free_size: bool) -> None:
    """Refuse options that the engine of a graph to come cannot have; without a TensorRT here nothing is asked.

    Raises:
        ConfigError, ExportError: see `check_options`.
    """
    try:
        options = first_options(changes)
    except MissingPartError:
        return
    check_options(options, spec, free_size=free_size)


def first_options(changes: Changes) -> EngineOptions:
    """The options of an engine where none is yet; MissingPartError: no TensorRT that can build here."""
    flavour = pick_flavour(changes.flavour)
    options = _changed(EngineOptions(), changes, flavour, _target(flavour, changes))
    return replace(options, flavour=flavour.word)


def add_engine(
    opened: Bundle, precision: str = "fp32", options: EngineOptions | None = None, progress: Progress | None = None
) -> Bundle:
    """Build the engine of a bundle's graph of that precision and list it; a bundle has one, the older one goes.

    On any error the bundle stays as it was; a crash leaves it whole, at worst without an engine.

    Raises:
        ModelError: it holds no such graph. Others: see `make_engine`.
    """
    graph = _graph(opened, precision)
    if opened.file is None:
        raise ExportError(f"{opened.path}: expected a bundle, which can hold an engine; found a lone file or a run")
    source = opened.path / graph.file
    if options is not None:
        check_multiple(options, int(graph.about.get("size_multiple", 1)), str(source))
    built = make_engine(source, opened.spec, opened.path, precision=precision, options=options, progress=progress)
    others = _without_engine(opened)
    if len(others) != len(opened.artifacts):  # between two engines the bundle lists none, so it can always be opened
        bundle.write_bundle(opened.path, opened.file.model_copy(update={"artifacts": others}))
    return _list_engine(opened, write_engine(opened.path, built))


def _list_engine(opened: Bundle, lock: EngineLock) -> Bundle:
    about = lock.model_dump(mode="json")
    engine = bundle.artifact(opened.path, ENGINE_FILE, "engine", lock.precision, about)
    if engine.sha256 != lock.engine_sha256:
        raise ModelError(f"{opened.path / ENGINE_FILE}: changed while it was compared; build again")
    assert opened.file is not None
    artifacts = (*_without_engine(opened), engine)
    return bundle.write_bundle(opened.path, opened.file.model_copy(update={"artifacts": artifacts}))


def _without_engine(opened: Bundle) -> tuple[Artifact, ...]:
    return tuple(a for a in opened.artifacts if a.kind != "engine")


def _graph(opened: Bundle, precision: str) -> Artifact:
    graph = opened.find("onnx", precision, target="tensorrt")
    if graph is None:
        held = ", ".join(a.precision for a in opened.artifacts if a.kind == "onnx" and a.target in ("", "tensorrt"))
        raise ModelError(
            f"{opened.path}: expected an ONNX graph of precision {precision} for TensorRT, found {held or 'none'}; "
            + (f"take one of these, or export with --precision {precision}" if held else "segdeploy export makes it")
        )
    return graph


def _present(opened: Bundle) -> tuple[EngineLock | None, list[str]]:
    """The lock of the engine that is there; or None, and why it cannot be looked at."""
    listed = next((a for a in opened.artifacts if a.kind == "engine"), None)
    if listed is None or not (opened.path / ENGINE_FILE).is_file():
        return None, ["there is no engine yet"]
    try:  # what the bundle says, whose files' hashes it holds; the file beside the engine is for whoever has it alone
        return parse_lock(json.dumps(listed.about), str(opened.path / bundle.BUNDLE_FILE)), []
    except ModelError as e:
        return None, [str(e)]


def options_of(lock: EngineLock) -> EngineOptions:
    """The options that an engine was built with, its flavour left open."""

    def sides(shape: Any, axis: int) -> Range:
        return shape.min[axis], shape.opt[axis], shape.max[axis]

    images = [next(iter(profile.values())) for profile in lock.profiles]
    targets = [c.replace(".", "") for c in lock.compute_capabilities]
    named = not any(t.endswith("+") for t in targets)
    return EngineOptions(
        profiles=tuple(Profile(batch=sides(i, 0), height=sides(i, 1), width=sides(i, 2)) for i in images),
        workspace=lock.workspace,
        optimization_level=lock.optimization_level,
        compute_capabilities=tuple(f"sm{t}" for t in targets) if lock.flavour != TENSORRT and named else (),
        version_compatible=lock.version_compatible,
        hardware_compatible=lock.hardware_compatible,
    )


def _target(flavour: Flavour, changes: Changes) -> Gpu | None:
    """The GPU here, where the engine is to run on it: TensorRT for RTX also builds for others, and not for all."""
    gpu = current_gpu()
    return None if gpu is None or changes.compute_capabilities or not is_target(flavour, gpu) else gpu


def _changed(before: EngineOptions, changes: Changes, flavour: Flavour, gpu: Gpu | None) -> EngineOptions:
    profiles = before.profiles
    if changes.batch or changes.height or changes.width:
        first = profiles[0]
        height, width = changes.height or first.height, changes.width or first.width
        batches: tuple[Range | None, ...] = changes.batch or tuple(p.batch for p in profiles)
        profiles = tuple(Profile(batch=batch, height=height, width=width) for batch in batches)
    given: dict[str, Any] = {
        "workspace": changes.workspace,
        "optimization_level": changes.optimization_level,
        "compute_capabilities": changes.compute_capabilities or None,
        "version_compatible": changes.version_compatible,
        "hardware_compatible": changes.hardware_compatible,
    }
    if not changes.compute_capabilities:
        if flavour.name == TENSORRT:  # its engines are for the GPU that is here
            given["compute_capabilities"] = ()
        elif gpu is not None:
            given["compute_capabilities"] = with_target(before.compute_capabilities, gpu)
    return replace(before, profiles=profiles, **{k: v for k, v in given.items() if v is not None})


def _verified(
    opened: Bundle, lock: EngineLock, table: Path | None, progress: Progress | None
) -> tuple[Bundle, EngineLock]:
    """The bundle and lock with the comparison in them, where a GPU can make it."""
    gpu = current_gpu()
    if gpu is None or lock.refusal(lock.version, gpu):  # built here for others
        return opened, lock
    from segdeploy.runtime.trt_runner import open_tensorrt

    options = RunnerOptions(device="cuda", precision=lock.precision, host_code=lock.version_compatible)
    changes: dict[str, Any]
    try:
        with (
            open_tensorrt(opened, options) as candidate,
            open_runner(opened, "onnxruntime", RunnerOptions(device="cpu")) as reference,
        ):
            records = _compare(reference, candidate, opened, lock.precision, table, progress)
            said = f"verified on {candidate.describe()['provider']}: "
    except MissingPartError as e:  # the engine is whole, and the build not in vain
        changes = {"status": f"built, not compared: {e}", "verification": ()}
    else:
        failed = [reason for record in records for reason in record["reasons"]]
        worst = min(record["agreement"] for record in records)
        said += f"{worst:.4%} of the pixels agree with onnxruntime in FP32"
        changes = {"status": f"FAILED: {'; '.join(failed)}" if failed else said, "verification": records}
    lock = lock.model_copy(update=changes)
    write_lock(opened.path, lock)
    return _list_engine(opened, lock), lock


def _compare(
    reference: Runner,
    candidate: Runner,
    opened: Bundle,
    precision: str,
    table: Path | None,
    progress: Progress | None,
) -> tuple[dict[str, Any], ...]:
    spec, file = opened.spec, opened.file
    export = Export.model_validate_json(json.dumps(file.limits if file is not None else {}))
    limits = export.limits(precision)
    if table is None:
        return (_compare_pictures(reference, candidate, spec, limits),)
    samples = read_table(table, spec.image_column, spec.mask_column)
    truth = find_truth(reference, samples, spec, progress)
    batches = export.verify_batches
    return tuple(verify(truth, candidate, limits, batch, progress=progress).to_dict() for batch in batches)


def _compare_pictures(reference: Runner, candidate: Runner, spec: ModelSpec, limits: Limits) -> dict[str, Any]:
    """A record as of a table, less what needs masks."""
    size = spec.preprocessing
    images = natural_images(_PICTURES, (size.height, size.width))
    agreement = float(np.mean(reference.run(images) == candidate.run(images)))
    enough = agreement >= limits.min_agreement
    said = f"{agreement:.5%} of the pixels of made-up pictures agree, fewer than {limits.min_agreement:.3%}"
    return {
        "backend": "tensorrt",
        "precision": candidate.describe()["precision"],
        "images": _PICTURES,
        "pictures": "made up",
        "agreement": agreement,
        "passed": enough,
        "reasons": [] if enough else [said],
    }
