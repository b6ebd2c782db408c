"""The benchmark: every row in its own process, rows taking turns round by round, accuracy in the same run."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.benchmark.group import Job, Measured, measure
from segdeploy.benchmark.labels import at_size
from segdeploy.benchmark.pictures import make_pictures
from segdeploy.benchmark.plan import Entry, Group, plan_entries, plan_groups
from segdeploy.benchmark.result import BenchmarkResult
from segdeploy.benchmark.rows import make_rows
from segdeploy.benchmark.scoring import WORST, make_accuracy, score_all
from segdeploy.config.schema import Benchmark
from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image
from segdeploy.data.scan import scan
from segdeploy.data.table import fingerprint, read_table
from segdeploy.environment import describe_machine
from segdeploy.errors import ModelError
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segdeploy.benchmark.result import Row
    from segdeploy.bundle import Bundle
    from segdeploy.data.table import Sample
    from segdeploy.evaluate import At

    Progress = Callable[[str, int, int], None]

POOL = 8
"""Batches over which the timed inputs rotate."""
POOL_BYTES = 256 * 2**20
"""Of memory for them, at most; a single batch may be larger."""


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
        table: images and masks; all of it is scored, its first images are the timed inputs.
        settings: batch sizes, threads, sizes, rounds, warm-up.
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
    samples = read_table(table, bundle.spec.image_column, bundle.spec.mask_column)
    machine = describe_machine()
    notes: list[str] = []
    # A broken file is found now, not after minutes of timing.
    progress("checking the table", 0, 1)
    scan(samples, bundle.spec.classes)
    data_sha256 = fingerprint(samples)
    groups = plan_groups(bundle, settings)
    entries = plan_entries(bundle, backends, machine, device, compile, notes)
    if not entries:
        raise ModelError(f"{bundle.path}: no backend has a file in it to run")
    with tempfile.TemporaryDirectory(prefix="segdeploy-", ignore_cleanup_errors=True) as folder:
        files = [str(s.image) for s in samples[:POOL]]
        job = Job(bundle, settings, device, files, Path(folder), bool(machine["gpus"]))
        measured: list[list[Measured]] = []
        for group in groups:
            images = _save_pool(samples, bundle, group, job.folder, notes)
            # What does not depend on the batch is measured beside the smallest.
            whole = group.batch == min(settings.batches)
            measured.append(measure(job, group, entries, images, whole=whole, progress=progress))
        # An entry that ran nowhere has no row to be believed or not.
        ran: dict[Entry, dict[str, object]] = {}
        for item in (m for items in measured for m in items if m.reason is None):
            ran.setdefault(item.entry, item.runner)
        able = {e: ran[e] for e in entries if e in ran}
        scored, unscored = score_all(job, able, groups[0], table, len(samples), at, progress)
        accuracy = make_accuracy(scored, samples, bundle.spec, WORST if pictures else 0)
        agreements = {a.name: a.label_agreement for a in accuracy}
        rows = [row for items in measured for row in make_rows(items, bundle, unscored, agreements)]
        examples = scored[-1] if scored else None  # what ships: torch comes first
        shown = (
            make_pictures(samples, bundle.spec, examples.labels, examples.told["image_iou"], pictures)
            if examples
            else []
        )
    notes += [note for items in measured for m in items for note in m.notes]
    notes += _notes(rows, machine, len(samples))
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
        threads=groups[0].threads,
        rounds=settings.rounds,
        warmup=settings.warmup,
        baseline=rows[0].baseline or "",
        machine=machine,
        rows=tuple(rows),
        accuracy=tuple(accuracy),
        pictures=tuple(shown),
        backends=_owners([m for items in measured for m in items]),
        verification=bundle.file.verification if bundle.file else (),
        notes=tuple(notes),
    )


def _save_pool(samples: Sequence[Sample], bundle: Bundle, group: Group, folder: Path, notes: list[str]) -> Path:
    """`POOL` batches of images at the group's size, one after the other, fewer where they would take too much memory.

    Batches begin at different images, so that those of a small table differ, too.
    """
    preprocessing = at_size(bundle, group.height, group.width).spec.preprocessing
    batches = max(1, min(POOL, POOL_BYTES // (group.batch * group.height * group.width * 3)))
    if batches < POOL:
        notes.append(f"the timed inputs of {group} are {batches} batches, all that fit in memory; {POOL} are usual")
    first = [resize_image(read_image(s.image), preprocessing) for s in samples[: batches * group.batch]]
    starts = [number * len(first) // batches for number in range(batches)]
    chosen = [first[(start + i) % len(first)] for start in starts for i in range(group.batch)]
    path = folder / f"images-{group.batch}-{group.width}x{group.height}.npy"
    np.save(path, np.stack(chosen))
    return path


def _notes(rows: Sequence[Row], machine: dict[str, object], images: int) -> list[str]:
    """What a sceptic should know of this run."""
    found = []
    if images < POOL:
        found.append(f"the timed inputs rotate over {images} images, all that the table has; {POOL} are usual")
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        found.append(f"OMP_WAIT_POLICY={policy} was set, which changes torch's rows")
    load = machine["load_average"]
    if isinstance(load, float) and load > 0.5:
        found.append(f"other work was running when the benchmark began (load average {load}); expect noise")
    if machine["gpus"]:
        on_cpu = {r.name for r in rows if "cpu" in (r.provider or "").lower()}
        found += [f"{name} ran on the CPU, although there is a GPU" for name in sorted(on_cpu)]
    return found


def _owners(measured: Sequence[Measured]) -> dict[str, str]:
    """The distribution of each backend that was opened, and the versions that its runner told."""
    owners = registry.catalogue("backend").owners
    found: dict[str, dict[str, str]] = {}
    for item in (m for m in measured if m.runner):
        owner = owners[item.entry.backend]
        known = found.setdefault(item.entry.backend, {owner.distribution: owner.version})
        known.update(item.runner.get("versions", {}))
    return {name: ", ".join(f"{k} {v}" for k, v in known.items()) for name, known in found.items()}


def _title(bundle: Bundle) -> str:
    """The name of the folder or of the lone graph, and what is in it."""
    encoder = bundle.spec.encoder
    alone = bundle.file is None and bundle.artifacts[0].kind == "onnx"
    name = Path(bundle.artifacts[0].file).stem if alone else bundle.path.resolve().name
    return f"{name}: {bundle.spec.decoder.name} on {encoder.config.get('model_name', encoder.name)}"
