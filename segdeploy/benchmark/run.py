"""The benchmark: every row in its own process, rows taking turns round by round, accuracy in the same run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.benchmark.pictures import make_pictures
from segdeploy.benchmark.process import WorkerProcess
from segdeploy.benchmark.result import BenchmarkResult
from segdeploy.benchmark.rows import Entry, make_accuracy, make_row, pick_baseline
from segdeploy.config.load import read_run_config
from segdeploy.config.schema import Benchmark
from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image
from segdeploy.data.scan import scan
from segdeploy.data.table import fingerprint, read_table
from segdeploy.environment import available_cores, describe_machine
from segdeploy.errors import ConfigError, ModelError
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segdeploy.bundle import Bundle
    from segdeploy.data.table import Sample
    from segdeploy.evaluate import At
    from segdeploy.plugin import BackendPlugin

    Progress = Callable[[str, int, int], None]

POOL = 16
"""Images over which the timed inputs rotate."""
TURN_SECONDS = 0.1
"""A row's turn in a round lasts at least this long, so that fast rows are not one lucky call."""
_ORDER = ("torch eager", "torch channels_last", "torch compile", "onnxruntime")


def run_benchmark(
    bundle: Bundle,
    table: Path,
    *,
    settings: Benchmark | None = None,
    backends: Sequence[str] | None = None,
    compile: bool = True,  # noqa: A002  (torch's word for it)
    device: str = "auto",
    at: At = "mask",
    pictures: int = 4,
    command: str = "",
    progress: Progress = lambda what, done, total: None,
) -> BenchmarkResult:
    """Measure all rows.

    Args:
        bundle: an opened bundle or run folder.
        table: images and masks; all of it is scored, its first 16 images are the timed inputs.
        settings: batch sizes, threads, rounds, warm-up.
        backends: names; None: all that the bundle has a file for. One that cannot run becomes a failed row.
        compile: whether to add torch.compile where a C++ compiler is found.
        device: "auto", "cpu" or "cuda".
        at: where accuracy is measured, see `segdeploy.evaluate`.
        pictures: how many example images the result carries; 0 for data that must not travel.
        command: the command line, for the report.
        progress: called with (what, done, total).

    Raises:
        DataError: the table cannot be read; MissingPartError: a backend that does not exist;
        ModelError: nothing in the bundle can be run.
    """
    settings = settings or Benchmark()
    threads = settings.threads or available_cores()
    samples = read_table(table, bundle.spec.image_column, bundle.spec.mask_column)
    machine = describe_machine()
    notes: list[str] = []
    # A broken file is found now, not after minutes of timing.
    progress("checking the table", 0, 1)
    scan(samples, bundle.spec.classes)
    data_sha256 = fingerprint(samples)
    entries = _entries(
        bundle, backends, compile, notes, fp16=device == "cuda" or (device == "auto" and bool(machine["gpus"]))
    )
    if not entries:
        raise ModelError(f"{bundle.path}: no backend has a file in it to run")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segdeploy-")))
        _save_pool(samples, bundle, folder / "images.npy")
        for number, entry in enumerate(entries):
            progress("opening", number, len(entries))
            _open(entry, bundle, threads, device, folder, stack)
        _time(entries, settings, progress)
        _score(entries, table, len(samples), at, folder, progress)
        baseline = pick_baseline(entries, min(settings.batches))
        accuracy = make_accuracy(entries, bundle)
        rows = [make_row(e, b, bundle, threads, settings.rounds, baseline) for b in settings.batches for e in entries]
        shown = make_pictures(samples, bundle.spec, *_shown(entries, folder), pictures)
    for entry in entries:
        if entry.scored is None and entry.rounds and entry.reason:
            notes.append(f"{entry.name} was timed, but not scored: {entry.reason}")
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        notes.append(f"OMP_WAIT_POLICY={policy} was set, which changes torch's rows")
    load = machine["load_average"]
    if load is not None and load > 0.5:
        notes.append(f"other work was running when the benchmark began (load average {load}); expect noise")
    return BenchmarkResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        model=_title(bundle),
        parameters=weights.about.get("parameters") if (weights := bundle.find("weights")) else None,
        spec=bundle.spec,
        table=table.name,
        images=len(samples),
        data_sha256=data_sha256,
        measured_at=at,
        threads=threads,
        rounds=settings.rounds,
        warmup=settings.warmup,
        baseline=baseline.name if baseline else "",
        machine=machine,
        rows=tuple(rows),
        accuracy=tuple(accuracy),
        pictures=tuple(shown),
        backends=_owners(entries),
        verification=bundle.file.verification if bundle.file else (),
        notes=tuple(notes),
    )


def _owners(entries: Sequence[Entry]) -> dict[str, str]:
    """The distribution of each backend that was opened, and the versions that its runner told."""
    owners = registry.catalogue("backend").owners
    found: dict[str, dict[str, str]] = {}
    for entry in (e for e in entries if e.opened):
        owner = owners[entry.backend]
        told = entry.opened.get("runner", {}).get("versions", {})
        found.setdefault(entry.backend, {owner.distribution: owner.version}).update(told)
    return {name: ", ".join(f"{k} {v}" for k, v in known.items()) for name, known in found.items()}


def _title(bundle: Bundle) -> str:
    """The folder's name, and what is in it."""
    encoder = bundle.spec.encoder
    return (
        f"{bundle.path.resolve().name}: {bundle.spec.decoder.name} on {encoder.config.get('model_name', encoder.name)}"
    )


def _entries(
    bundle: Bundle, wanted: Sequence[str] | None, compile_: bool, notes: list[str], *, fp16: bool
) -> list[Entry]:
    plugins = registry.catalogue("backend").plugins
    for name in wanted or ():
        registry.backend(name)  # MissingPartError names the near ones
    entries: list[Entry] = []
    for name in wanted or plugins:
        plugin = plugins[name]
        ready = plugin.available()
        held = any(a.kind == plugin.artifact for a in bundle.artifacts)
        if wanted is None and not (held and ready.ok):
            notes.append(f"{name} was left out: {ready.reason or f'the model has no {plugin.artifact} file'}")
            continue
        for precision in _precisions(bundle, plugin, fp16, notes):
            for variant in _variants(name, compile_, notes):
                words = (name, variant or ("eager" if name == "torch" else ""), precision.replace("fp32", ""))
                reason = None if ready.ok else ready.reason
                entries.append(Entry(" ".join(filter(None, words)), name, variant, precision, reason=reason))
    return sorted(entries, key=lambda e: (_ORDER.index(e.name) if e.name in _ORDER else len(_ORDER), e.name))


def _precisions(bundle: Bundle, plugin: BackendPlugin, fp16: bool, notes: list[str]) -> list[str]:
    """Those that the bundle holds for this backend; FP32 where it holds none, whose row then says so."""
    kept = {a.precision for a in bundle.artifacts if a.kind == plugin.artifact}
    held = [p for p in plugin.precisions if p in kept]
    if "fp16" in held and plugin.artifact == "onnx" and not fp16:
        notes.append(f"{plugin.name} fp16 was left out: a CPU computes it in FP32, only slower")
        held.remove("fp16")
    return held or ["fp32"]


def _variants(backend: str, compile_: bool, notes: list[str]) -> list[str]:
    if backend != "torch":
        return [""]
    # inductor takes CXX, else the first of these.
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if compile_ and not any(shutil.which(c) for c in compilers):
        notes.append("torch compile was left out: no C++ compiler found")
        compile_ = False
    return ["", "channels_last", *(["compile"] if compile_ else [])]


def _save_pool(samples: Sequence[Sample], bundle: Bundle, path: Path) -> None:
    chosen = samples[:POOL]
    np.save(path, np.stack([resize_image(read_image(s.image), bundle.spec.preprocessing) for s in chosen]))


def _open(entry: Entry, bundle: Bundle, threads: int, device: str, folder: Path, stack: ExitStack) -> None:
    if entry.reason is not None:
        return
    entry.worker = stack.enter_context(WorkerProcess(threads))
    options = {"threads": threads, "device": device, "variant": entry.variant, "precision": entry.precision}
    model = bundle.path
    if bundle.file is None and (single := next((a for a in bundle.artifacts if a.kind == "onnx"), None)):
        model = bundle.path / single.file  # a lone ONNX file
    answer = entry.ask(
        "open", model=str(model), backend=entry.backend, options=options, images=str(folder / "images.npy")
    )
    entry.opened = answer or {}


def _time(entries: list[Entry], settings: Benchmark, progress: Progress) -> None:
    steps = len(settings.batches) * (settings.rounds + 1)
    for number, batch in enumerate(settings.batches):
        progress(f"warming up, batch {batch}", number * (settings.rounds + 1), steps)
        for entry in entries:
            first = entry.ask("call", batch=batch, calls=1)
            if first is not None:
                entry.first_call[batch] = first["milliseconds"][0] / 1e3
            if settings.warmup:
                entry.ask("call", batch=batch, calls=settings.warmup)
            entry.rounds[batch] = []
        for turn in range(settings.rounds):
            progress(f"timing, batch {batch}", number * (settings.rounds + 1) + turn + 1, steps)
            # Every other round runs backwards, so that no row always follows the same neighbour.
            for entry in entries if turn % 2 == 0 else entries[::-1]:
                answer = entry.ask("call", batch=batch, calls=2, seconds=TURN_SECONDS)
                if answer is not None:
                    entry.rounds[batch].append(answer["milliseconds"])
        for entry in entries:
            memory = entry.ask("memory")
            if memory is not None:
                entry.memory[batch] = memory["peak_memory_mib"]


def _score(entries: list[Entry], table: Path, images: int, at: At, folder: Path, progress: Progress) -> None:
    reference: str | None = None
    for number, entry in enumerate(entries):
        progress(f"scoring {entry.name}", number, len(entries))
        labels = folder / f"labels{number}"
        labels.mkdir()
        # A minute for the start, and for each image far more than its own measured time.
        slowest = max((ms for turns in entry.rounds.values() for turn in turns for ms in turn), default=0.0)
        limit = 60 + images * (5 + slowest / 100)
        entry.scored = entry.ask("accuracy", limit, table=str(table), at=at, labels=str(labels), reference=reference)
        if reference is None and entry.scored is not None and entry.backend == "torch":
            reference = str(labels)
            entry.scored["agreement"] = 1.0
    progress("scoring", len(entries), len(entries))


def _shown(entries: list[Entry], folder: Path) -> tuple[Path | None, list[float | None]]:
    """Labels and per-image scores of what ships: the last row that is not torch, else any."""
    scored = [(i, e) for i, e in enumerate(entries) if e.scored is not None]
    if not scored:
        return None, []
    number, entry = next(((i, e) for i, e in reversed(scored) if e.backend != "torch"), scored[-1])
    assert entry.scored is not None
    return folder / f"labels{number}", entry.scored["image_iou"]


def benchmark_settings(bundle: Bundle, changes: dict[str, Any]) -> Benchmark:
    """The `benchmark` section that the model was trained with, with what is not None in `changes`.

    `batches` may be a word like "1,4". Raises ConfigError for a value out of bounds.
    """
    kept = bundle.file.benchmark if bundle.file else {}
    if (config := read_run_config(bundle.path)) is not None:
        kept = config.benchmark.model_dump(mode="json")
    given = {k: v for k, v in changes.items() if v is not None}
    if "batches" in given:
        words = str(given["batches"]).split(",")
        if not all(w.strip().isdecimal() and int(w) > 0 for w in words):
            raise ConfigError(f"--batches {given['batches']}: expected whole numbers from 1, such as 1,4")
        given["batches"] = [int(w) for w in words]
    return Benchmark.model_validate_json(json.dumps({**kept, **given}))
