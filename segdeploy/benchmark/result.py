"""BenchmarkResult: everything a report shows. `report.json` is this value; the pages are functions of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from segdeploy.errors import ModelError
from segdeploy.frozen import Frozen
from segdeploy.model.spec import ModelSpec


class Latency(Frozen):
    """Milliseconds per call, uint8 batch in memory to uint8 map in memory."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float
    samples: tuple[float, ...]
    """Every measured call, in order."""


class Row(Frozen):
    """One way of running the model at one batch size. A row that failed says why and has no numbers."""

    name: str
    """For people: "torch channels_last", "onnxruntime"."""
    backend: str
    variant: str
    precision: str
    batch: int
    threads: int
    provider: str | None = None
    """What really ran: a CPU, CUDAExecutionProvider, ..."""
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    """Why it failed."""
    latency: Latency | None = None
    images_per_second: float | None = None
    """batch / p50."""
    speedup: float | None = None
    """Median over the rounds of baseline time / this time, both of the same round and batch."""
    speedup_low: float | None = None
    speedup_high: float | None = None
    """95 % bootstrap interval of `speedup`."""
    artifact: str | None = None
    """File that it runs."""
    artifact_bytes: int | None = None
    load_seconds: float | None = None
    """From opening the files to being ready for the first call, imports of the engine included."""
    first_call_seconds: float | None = None
    """The first call; for a compiled row the compilation."""
    peak_memory_mib: float | None = None
    """Largest resident size of the row's process up to and with this batch size."""


class ClassScore(Frozen):
    """One class on the whole table."""

    name: str
    iou: float | None
    accuracy: float | None
    precision: float | None
    pixels: int
    iou_delta: float | None = None
    """This IoU less torch's."""


class Accuracy(Frozen):
    """One backend on the whole table."""

    name: str
    """As in `Row.name`."""
    backend: str
    precision: str
    images: int
    mean_iou: float | None
    pixel_accuracy: float | None
    mean_class_accuracy: float | None
    miou_delta: float | None = None
    """This mean IoU less torch's, 0.01 = one point."""
    label_agreement: float | None = None
    """Share of pixels with the same class as torch's."""
    per_class: tuple[ClassScore, ...]
    absent_classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true class; columns: predicted class; pixels."""


class Picture(Frozen):
    """One image of the table with its mask and a prediction, as data URIs of the same size."""

    name: str
    image_iou: float | None
    """Mean IoU of this image alone."""
    image: str
    truth: str
    """Image blended with the true classes; unlabelled pixels are black."""
    predicted: str
    """Image blended with the predicted classes."""
    errors: str
    """Grey image, wrong pixels in red, unlabelled pixels in blue-grey."""


class BenchmarkResult(Frozen):
    """A whole benchmark."""

    schema_version: Literal[1] = 1
    created: str
    """UTC, ISO 8601."""
    command: str
    """The command line that a reader can run again."""
    model: str
    """Name of the bundle or run, decoder and encoder."""
    parameters: int | None
    spec: ModelSpec
    table: str
    images: int
    data_sha256: str
    measured_at: Literal["mask", "model"]
    threads: int
    rounds: int
    warmup: int
    baseline: str
    """The row that speed-ups are quoted against: the fastest torch row without a compiler at the smallest batch."""
    machine: dict[str, Any]
    """cpu, cpu_features, cores, memory_gib, os, python, load_average, packages {name: version}."""
    rows: tuple[Row, ...]
    accuracy: tuple[Accuracy, ...]
    pictures: tuple[Picture, ...]
    backends: dict[str, str] = {}
    """By a backend's name: the distribution that it comes from and its engine, with versions."""
    verification: tuple[dict[str, Any], ...] = ()
    """The bundle's own record of its comparison with torch (see segdeploy.export.verify.Parity)."""
    notes: tuple[str, ...] = ()
    """What a sceptic should know: "torch compile was left out: no C++ compiler", "the machine was busy", ..."""


def parse_result(text: str | bytes, name: str) -> BenchmarkResult:
    """`report.json` to a BenchmarkResult; ModelError where it is none."""
    try:
        return BenchmarkResult.model_validate_json(text)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise ModelError(
            f"{name}: not a report of this segdeploy: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from e
