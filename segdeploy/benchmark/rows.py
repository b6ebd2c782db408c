"""From what the workers measured to the rows and scores of a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.benchmark.process import RowError, WorkerProcess
from segdeploy.benchmark.result import Accuracy, ClassScore, Row
from segdeploy.benchmark.timing import latency, paired_ratio
from segdeploy.metrics import Scores, none_if_nan
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.bundle import Bundle


@dataclass(slots=True)
class Entry:
    """A row in the making, over all batch sizes."""

    name: str
    backend: str
    variant: str
    precision: str = "fp32"
    worker: WorkerProcess | None = None
    reason: str | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    first_call: dict[int, float] = field(default_factory=dict)
    rounds: dict[int, list[list[float]]] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    scored: dict[str, Any] | None = None

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> dict[str, Any] | None:
        """The worker's answer; None, and a reason kept, when it failed."""
        if self.worker is None or self.reason is not None:
            return None
        try:
            return self.worker.ask(do, timeout, **arguments)
        except RowError as e:
            self.reason = str(e)
            return None


def pick_baseline(entries: Sequence[Entry], batch: int) -> Entry | None:
    """The fastest of torch's rows that need no compiler."""
    able = [e for e in entries if e.backend == "torch" and e.variant != "compile" and e.rounds.get(batch)]
    return min(able, key=lambda e: float(np.median(np.concatenate(e.rounds[batch]))), default=None)


def make_row(entry: Entry, batch: int, bundle: Bundle, threads: int, expected: int, baseline: Entry | None) -> Row:
    """One row at one batch size; failed, with its reason, where fewer than `expected` rounds were measured."""
    plugin = registry.backend(entry.backend)
    described = entry.opened.get("runner", {})
    on_cpu = str(described.get("provider") or "CPU").upper().startswith("CPU")
    file = bundle.find(plugin.artifact, entry.precision, "cpu" if on_cpu else "tensorrt")
    rounds = entry.rounds.get(batch) or []
    row = Row(
        name=entry.name,
        backend=entry.backend,
        variant=entry.variant,
        precision=described.get("precision", entry.precision),
        batch=batch,
        threads=threads,
        provider=described.get("provider"),
        artifact=file.file if file else None,
        artifact_bytes=file.bytes if file else None,
        load_seconds=entry.opened.get("load_seconds"),
        first_call_seconds=entry.first_call.get(batch),
        peak_memory_mib=entry.memory.get(batch),
    )
    if len(rounds) < expected:
        return row.model_copy(update={"status": "failed", "reason": entry.reason or "not every round was measured"})
    found = latency([ms for turn in rounds for ms in turn])
    ratio: tuple[float | None, float | None, float | None] = (None, None, None)
    if baseline is not None and len(baseline.rounds.get(batch) or []) == len(rounds):
        ratio = paired_ratio(baseline.rounds[batch], rounds)
    return row.model_copy(
        update={
            "latency": found,
            "images_per_second": batch / found.p50 * 1e3,
            "speedup": ratio[0],
            "speedup_low": ratio[1],
            "speedup_high": ratio[2],
        }
    )


def make_accuracy(entries: Sequence[Entry], bundle: Bundle) -> list[Accuracy]:
    """The scores of every entry that was scored; deltas are against the first torch one."""
    scored = [e for e in entries if e.scored is not None]
    truth = next((Scores(np.array(e.scored["confusion"])) for e in scored if e.scored and e.backend == "torch"), None)
    result = []
    for entry in scored:
        assert entry.scored is not None
        scores = Scores(np.array(entry.scored["confusion"]))
        iou, accuracy, precision = scores.iou, scores.accuracy, scores.precision
        deltas = iou - truth.iou if truth is not None else np.full(len(iou), np.nan)
        names = bundle.spec.classes.names
        result.append(
            Accuracy(
                name=entry.name,
                backend=entry.backend,
                precision=entry.opened["runner"]["precision"],
                images=entry.scored["images"],
                mean_iou=none_if_nan(scores.mean_iou),
                pixel_accuracy=none_if_nan(scores.pixel_accuracy),
                mean_class_accuracy=none_if_nan(scores.mean_accuracy),
                miou_delta=none_if_nan(scores.mean_iou - truth.mean_iou) if truth is not None else None,
                label_agreement=entry.scored["agreement"],
                per_class=tuple(
                    ClassScore(
                        name=name,
                        iou=none_if_nan(iou[i]),
                        accuracy=none_if_nan(accuracy[i]),
                        precision=none_if_nan(precision[i]),
                        pixels=int(scores.confusion[i].sum()),
                        iou_delta=none_if_nan(deltas[i]),
                    )
                    for i, name in enumerate(names)
                ),
                absent_classes=tuple(n for n, v in zip(names, iou, strict=True) if np.isnan(v)),
                confusion=tuple(tuple(int(v) for v in line) for line in scores.confusion),
            )
        )
    return result
