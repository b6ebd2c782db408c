"""Every number of a benchmark that can be held to a limit: name, unit, direction, place in the report, meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a benchmark that a gate can be set on.

    `source` is its place in the report: of the row, of its accuracy, of its changes since the older report, or of
    the run as a whole; where the place holds several numbers, such as one per class, the worst counts. `factor`
    turns what stands there into `unit`. `needs` says what it takes to have the number at all.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    source: str
    about: str
    factor: float = 1.0
    needs: str = ""

    @property
    def is_score(self) -> bool:
        """Whether it is one number for all batches and thread counts, of the model's own size."""
        return self.source.startswith(("accuracy.", "change.miou.", "change.boundary.", "change.agreement."))


_TORCH = "a row of torch to compare with"
_OLDER = "an older report, see --compare"
_MIB = 1 / 2**20


def _change(of: str, better: Literal["lower", "higher"], about: str, end: str = "") -> Metric:
    short = re.sub("_(ms|s|mib)$", "", of)
    return Metric(f"{short}_change{end}", "fraction", better, f"change.{of}.{end[1:] or 'change'}", about, needs=_OLDER)


METRICS = {
    m.name: m
    for m in (
        Metric("miou", "fraction", "higher", "accuracy.mean_iou", "mean IoU over the whole table"),
        Metric("miou_drop", "fraction", "lower", "accuracy.miou_delta", "mean IoU below torch's", -1.0, _TORCH),
        Metric(
            "worst_class_drop", "fraction", "lower", "accuracy.per_class.iou_delta",
            "IoU below torch's, of the class that loses most", -1.0, _TORCH,
        ),
        Metric("boundary", "fraction", "higher", "accuracy.boundary_iou", "mean boundary IoU"),
        Metric(
            "boundary_drop", "fraction", "lower", "accuracy.boundary_delta", "mean boundary IoU below torch's", -1.0,
            _TORCH,
        ),
        Metric(
            "worst_boundary_drop", "fraction", "lower", "accuracy.per_class.boundary_delta",
            "boundary IoU below torch's, of the class that loses most", -1.0, _TORCH,
        ),
        Metric("pixel_accuracy", "fraction", "higher", "accuracy.pixel_accuracy", "share of right pixels"),
        Metric(
            "agreement", "fraction", "higher", "accuracy.label_agreement", "share of pixels with torch's class",
            needs=_TORCH,
        ),
        Metric(
            "worst_image_agreement", "fraction", "higher", "accuracy.worst.agreement",
            "the same, of the image with the least", needs=f"{_TORCH}, and the worst images in the report",
        ),
        Metric("p50_ms", "ms", "lower", "row.latency.p50", "half of the calls, each a whole batch, took at most this"),
        Metric("p90_ms", "ms", "lower", "row.latency.p90", "90 % of the calls took at most this"),
        Metric("p99_ms", "ms", "lower", "row.latency.p99", "99 % of the calls took at most this"),
        Metric("mean_ms", "ms", "lower", "row.latency.mean", "mean time of a call"),
        Metric("min_ms", "ms", "lower", "row.latency.min", "the fastest call"),
        Metric("engine_p50_ms", "ms", "lower", "row.engine.p50", "the engine's own share of p50_ms"),
        Metric("engine_p99_ms", "ms", "lower", "row.engine.p99", "the engine's own share, 99 % of the calls"),
        Metric("file_p50_ms", "ms", "lower", "row.file_to_file.p50", "image file to mask file, half of the files"),
        Metric("file_p99_ms", "ms", "lower", "row.file_to_file.p99", "image file to mask file, 99 % of the files"),
        Metric("images_per_second", "images/s", "higher", "row.images_per_second", "batch / p50_ms"),
        Metric(
            "speedup", "x", "higher", "row.speedup", "times as fast as torch's fastest row, median over the rounds",
            needs=_TORCH,
        ),
        Metric(
            "speedup_low", "x", "higher", "row.speedup_low", "lower end of its 95 % interval: what has been shown",
            needs=_TORCH,
        ),
        Metric("load_s", "s", "lower", "row.load_seconds", "opening the files until ready, imports included"),
        Metric("first_call_s", "s", "lower", "row.first_call_seconds", "the first call"),
        Metric("cold_s", "s", "lower", "row.cold_seconds", "start of a new process to its first mask"),
        Metric("size_mib", "MiB", "lower", "row.artifact_bytes", "the file that it runs", _MIB),
        Metric("memory_mib", "MiB", "lower", "row.peak_memory_mib", "peak resident memory of its process"),
        Metric("device_memory_mib", "MiB", "lower", "row.device_memory_mib", "memory it takes on the GPU"),
        Metric("disturbed_rounds", "rounds", "lower", "row.disturbed", "rounds that count though the cores were busy"),
        Metric("failed_rows", "rows", "lower", "run.failed_rows", "rows that failed"),
        _change("p50_ms", "lower", "p50_ms new / old - 1"),
        _change("p50_ms", "lower", "lower end of its 95 % interval: the slow-down that has been shown", "_low"),
        _change("p50_ms", "lower", "upper end of its 95 % interval: the slow-down that is not ruled out", "_high"),
        _change("p99_ms", "lower", "p99_ms new / old - 1"),
        _change("engine_p50_ms", "lower", "engine_p50_ms new / old - 1"),
        _change("file_p50_ms", "lower", "file_p50_ms new / old - 1"),
        _change("speedup", "higher", "speed-up over the same row of torch, new / old - 1"),
        _change("miou", "higher", "miou new - old"),
        _change("boundary", "higher", "boundary new - old"),
        _change("agreement", "higher", "agreement new - old"),
        _change("size_mib", "lower", "size_mib new / old - 1"),
        _change("memory_mib", "lower", "memory_mib new / old - 1"),
        _change("device_memory_mib", "lower", "device_memory_mib new / old - 1"),
        _change("load_s", "lower", "load_s new / old - 1"),
        _change("first_call_s", "lower", "first_call_s new / old - 1"),
        _change("cold_s", "lower", "cold_s new / old - 1"),
        Metric(
            "slower_rows", "rows", "lower", "run.slower_rows",
            "rows shown to be slower than before, by the clock and against torch", needs=_OLDER,
        ),
        Metric("lost_rows", "rows", "lower", "run.lost_rows", "rows that are gone, or fail now", needs=_OLDER),
    )
}  # fmt: skip
"""By name: help, reports and checks are made of this table."""


def metrics_table() -> list[list[str]]:
    """Name, unit, the sign of its limit, and meaning of every metric, for help and documents."""
    signs = {"lower": "<=", "higher": ">="}
    return [
        [m.name, m.unit, signs[m.better], f"{m.about}; needs {m.needs}" if m.needs else m.about]
        for m in METRICS.values()
    ]
