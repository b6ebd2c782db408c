"""One group of rows: each in a process of its own, taking turns round by round.

open row by row, first call, warm up until steady
round 0:  A B C D     each: one call that does not count, then 0.1 s or two calls
round 1:  D C B A     so that no row always follows the same neighbour
...
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segdeploy.benchmark.plan import Entry, Group, refusal
from segdeploy.benchmark.process import RowError, WorkerProcess
from segdeploy.runtime.gpu import used_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.bundle import Bundle
    from segdeploy.config.schema import Benchmark

TURN_SECONDS = 0.1
"""A row's turn lasts at least this long, so that fast rows are not one lucky call."""
TURN_CALLS = 2
REPEATING = "; other work disturbs rounds, which are repeated"
FILE_ROUNDS = 10
"""At most, for times from file to file."""
_ON_EITHER = ("torch", "onnxruntime")
"""Backends that run on a GPU where there is one, unless they are told not to."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all rows of a benchmark share."""

    bundle: Bundle
    settings: Benchmark
    device: str
    files: list[str]
    """Image files."""
    folder: Path
    """For what lasts only as long as the benchmark."""
    has_gpu: bool = False
    """Whether the machine has one, which device "auto" then means."""

    @property
    def on_gpu(self) -> bool:
        """Whether rows are meant for a GPU."""
        return self.device.startswith("cuda") or (self.device == "auto" and self.has_gpu)

    @property
    def model(self) -> Path:
        """What a worker opens: the folder, or a lone ONNX file."""
        alone = self.bundle.artifacts[0] if self.bundle.file is None else None
        return self.bundle.path / alone.file if alone and alone.kind == "onnx" else self.bundle.path

    def start(self, entry: Entry, threads: int, cache: str) -> WorkerProcess:
        """A process for a row; what torch compiles in it goes to a cache of that name, which begins empty."""
        folder = self.folder / "inductor" / re.sub(r"\W+", "-", f"{entry.name} {cache}")
        return WorkerProcess(threads, self.settings.timeout, {"TORCHINDUCTOR_CACHE_DIR": str(folder)})

    def opening(self, entry: Entry, group: Group) -> dict[str, Any]:
        """The arguments of the worker's `open`."""
        options = {
            "threads": group.threads,
            "device": self.device,
            "variant": entry.variant,
            "precision": entry.precision,
        }
        size = (group.height, group.width)
        return {"model": str(self.model), "backend": entry.backend, "options": options, "size": size}


@dataclass(slots=True)
class Measured:
    """A row in the making."""

    entry: Entry
    group: Group
    reason: str | None = None
    on_gpu: bool = False
    """Whether it is meant for a GPU."""
    worker: WorkerProcess | None = None
    runner: dict[str, Any] = field(default_factory=dict)
    load_seconds: float | None = None
    first_call_seconds: float | None = None
    warmup_calls: int | None = None
    steady: bool | None = None
    rounds: list[list[float]] = field(default_factory=list)
    engine: list[list[float]] = field(default_factory=list)
    files: list[list[float]] = field(default_factory=list)
    repeated: int = 0
    disturbed: int = 0
    file_disturbed: int | None = None
    agreement: float | None = None
    notes: list[str] = field(default_factory=list)
    cold_seconds: float | None = None
    peak_memory_mib: float | None = None
    device_memory_mib: float | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any] | None:
        """The worker's answer; None, and a reason kept, when it failed."""
        if self.worker is None or self.reason is not None:
            return None
        try:
            return self.worker.ask(do, **arguments)
        except RowError as e:
            self.reason = str(e)
            return None


def measure(
    job: Job,
    group: Group,
    entries: list[Entry],
    images: Path,
    *,
    whole: bool,
    progress: Callable[[str, int, int], None],
) -> list[Measured]:
    """Time all entries of a group.

    Rounds go on until there are `settings.rounds` of them, and for `settings.seconds`, whichever comes later: a round
    is one ratio, and an interval needs a number of them; but thirty rounds of a fast network are over before a clock
    or a temperature has drifted once.

    Args:
        job: what all rows share.
        group: batch, threads and size.
        entries: what to measure.
        images: .npy file of images at the group's size, a multiple of the batch.
        whole: also measure from file to file, and from a cold process to the first mask.
        progress: called with (what, done, total).
    """
    settings = job.settings
    rows = [Measured(e, group, e.reason or refusal(job.bundle, e, group), job.on_gpu) for e in entries]
    with ExitStack() as stack:
        for number, row in enumerate(rows):
            progress(f"{group}: opening and warming up", number, len(rows))
            _open(row, job, images, stack)
        said = f"{group}: timing"
        repeated, disturbed = take_turns(
            rows, "memory", settings.rounds, settings.seconds, lambda n, of, note: progress(said + note, n, of)
        )
        if whole:
            rounds = min(settings.rounds, FILE_ROUNDS)
            said = f"{group}: from file to file"
            _, in_files = take_turns(
                rows, "file", rounds, 0, lambda n, of, note: progress(said + note, n, of),
                folder=str(job.folder / "masks"),
            )  # fmt: skip
        for row in rows:
            row.repeated, row.disturbed = repeated, disturbed
            row.file_disturbed = in_files if whole else None
            if (state := row.ask("state")) is not None:
                row.peak_memory_mib = state["peak_memory_mib"]
                _check_provider(row, state["runner"], job)
            row.worker = None
    if whole:
        _start_cold(rows, job, progress)
    return rows


def take_turns(
    rows: list[Measured],
    what: str,
    rounds: int,
    seconds: float,
    progress: Callable[[int, int, str], None],
    **arguments: Any,
) -> tuple[int, int]:
    """Rounds until `rounds` of them count, and for `seconds`. A row that fails drops out; the others go on.

    A round in which other work took the cores from any row is thrown away and repeated, since its ratios compare
    rows under different conditions; after as many repetitions as there are rounds, patience ends and they count.

    `progress` is called with (done, total, note) before each round; the note says why nothing moves on a busy machine.

    Returns:
        how many rounds were repeated, and how many count although they were disturbed.
    """
    ends = time.monotonic() + seconds
    kept = repeated = disturbed = 0
    again = False
    while kept < rounds or time.monotonic() < ends:
        progress(min(kept, rounds), rounds, REPEATING if again else "")
        turns: list[tuple[Measured, dict[str, Any]]] = []
        for row in rows if kept % 2 == 0 else rows[::-1]:
            if (turn := row.ask("turn", what=what, calls=TURN_CALLS, seconds=TURN_SECONDS, **arguments)) is not None:
                turns.append((row, turn))
        if not turns:
            break
        is_disturbed = any(turn["disturbed"] for _, turn in turns)
        again = is_disturbed and repeated < rounds
        if again:
            repeated += 1
            continue
        for row, turn in turns:
            _keep(row, what, turn)
        kept += 1
        disturbed += is_disturbed
    return repeated, disturbed


def _keep(row: Measured, what: str, turn: dict[str, Any]) -> None:
    (row.rounds if what == "memory" else row.files).append(turn["milliseconds"])
    if what == "memory" and turn["engine"] is not None:
        row.engine.append(turn["engine"])


def _open(row: Measured, job: Job, images: Path, stack: ExitStack) -> None:
    """Start, load, call once, warm up. Rows come one by one, so that what the GPU lost meanwhile is this row's."""
    if row.reason is not None:
        return
    settings, held = job.settings, used_memory()
    row.worker = stack.enter_context(job.start(row.entry, row.group.threads, str(row.group)))
    if (opened := row.ask("open", **job.opening(row.entry, row.group))) is None:
        return
    row.load_seconds, row.runner = opened["load_seconds"], opened["runner"]
    _check_provider(row, opened["runner"], job)
    _first(row, job, images)
    if (warm := row.ask("warm", calls=settings.warmup, patience=settings.warmup_seconds)) is not None:
        row.warmup_calls, row.steady = warm["calls"], warm["steady"] if settings.warmup_seconds else None
    if held is not None and (now := used_memory()) is not None and not _on_cpu(row.runner):
        row.device_memory_mib = max(0.0, now - held)


def _first(row: Measured, job: Job, images: Path) -> None:
    """The first call, and how far the labels of the timed inputs are those of torch's first row, which comes first."""
    reference, own = images.with_suffix(".torch"), images.with_suffix(".own")
    asked: dict[str, str] = {}
    if reference.exists():
        asked = {"reference": str(reference)}
    elif row.entry.backend == "torch":
        own.mkdir(exist_ok=True)
        asked = {"keep": str(own)}
    told = row.ask("first", images=str(images), batch=row.group.batch, files=job.files, **asked)
    if told is None:
        return
    row.first_call_seconds, row.agreement = told["seconds"], told["agreement"]
    if "keep" in asked:
        own.rename(reference)
        row.agreement = 1.0


def _check_provider(row: Measured, runner: dict[str, Any], job: Job) -> None:
    """A row that was to run on a GPU and does not has failed, whatever its labels."""
    asked, provider = job.device.startswith("cuda"), runner.get("provider")
    if row.reason is not None or job.device == "cpu":
        return
    if why := runner.get("fell_back"):
        row.reason = f"it fell back to {provider}: {why}"
    elif asked and provider is None:
        row.reason = f"it does not tell what it runs on, although device {job.device} was asked for"
    elif asked and _on_cpu(runner):
        row.reason = f"it fell back to {provider}, although device {job.device} was asked for"
    elif row.on_gpu and row.entry.backend in _ON_EITHER and _on_cpu(runner):
        row.reason = f"it fell back to {provider}, although there is a GPU; --device cpu measures the CPU"


def differs(timed: dict[str, Any], other: dict[str, Any]) -> str | None:
    """In words, where two processes of a row run on different things; None where they do not."""
    told = [tuple(str(runner.get(key)) for key in ("provider", "precision")) for runner in (other, timed)]
    return None if told[0] == told[1] else f"it ran on {' in '.join(told[0])}, and was timed on {' in '.join(told[1])}"


def _on_cpu(runner: dict[str, Any]) -> bool:
    return "cpu" in str(runner.get("provider")).lower()


def _start_cold(rows: list[Measured], job: Job, progress: Callable[[str, int, int], None]) -> None:
    """From the start of a new process to a mask file, the best of a few; a compilation is waited for once only."""
    starts = job.settings.cold_starts
    elsewhere: set[str] = set()
    for number in range(starts):
        progress("cold starts", number, starts)
        for row in rows:
            if (
                row.reason is not None
                or row.entry.name in elsewhere
                or (number and row.entry.variant.startswith("compile"))
            ):
                continue
            began = time.perf_counter()
            try:
                with job.start(row.entry, row.group.threads, f"cold {row.group}") as worker:
                    opened = worker.ask("open", **job.opening(row.entry, row.group))
                    worker.ask("mask", image=job.files[0], folder=str(job.folder / "masks"))
                    taken = time.perf_counter() - began
            except RowError as e:
                row.reason = f"in a cold process: {e}"
                continue
            if why := differs(row.runner, opened["runner"]):
                row.notes.append(f"{row.entry.name} has no cold start, as {why}")
                row.cold_seconds = None
                elsewhere.add(row.entry.name)
                continue
            row.cold_seconds = min(taken, row.cold_seconds or taken)
