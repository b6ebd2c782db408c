"""BenchmarkResult: everything a report shows. `report.json` is this value; the pages are functions of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from segdeploy.benchmark.outcome import Comparison, GateCheck
from segdeploy.errors import ModelError
from segdeploy.frozen import Frozen
from segdeploy.model.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path


class Latency(Frozen):
    """Milliseconds per call; the row says from where to where."""

    p50: float
    p90: float
    p99: float
    mean: float
    min: float
    samples: tuple[tuple[float, ...], ...]
    """Every measured call: the rounds in order, and the calls of each in order."""


class Row(Frozen):
    """One way of running the model: backend x variant x precision x batch x threads x size, in a process of its own.

    A row that failed says why and has no numbers. Rows of one batch, thread count and size take turns and can be
    compared.
    """

    name: str
    """For people: "torch channels_last", "onnxruntime"."""
    backend: str
    variant: str
    precision: str
    batch: int
    threads: int
    """CPU threads of the engine."""
    height: int
    width: int
    """Of the images that the network takes, pixels."""
    provider: str | None = None
    """What really ran: a CPU, CUDAExecutionProvider, ..."""
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    """Why it failed."""
    latency: Latency | None = None
    """End to end: a uint8 batch in memory to a uint8 map in memory, by the clock."""
    engine: Latency | None = None
    """The engine's own share of the same calls: CUDA events where there are some, else the clock around its call."""
    file_to_file: Latency | None = None
    """From an image file to its mask file on disk, batch 1."""
    images_per_second: float | None = None
    """batch / p50 of `latency`."""
    warmup_calls: int | None = None
    """Untimed calls until the time was steady."""
    steady: bool | None = None
    """Whether it was, before patience ended."""
    rounds: int | None = None
    """Rounds that count."""
    repeated: int | None = None
    """Rounds that were thrown away and measured again, because other work had taken the cores."""
    disturbed: int | None = None
    """Rounds that count although other work had taken the cores, because patience ended."""
    file_disturbed: int | None = None
    """The same of the rounds from file to file."""
    agreement: float | None = None
    """Share of the timed inputs' pixels with the class of the group's torch row: at this batch and size."""
    baseline: str | None = None
    """Name of the row that `speedup` is quoted against: the fastest torch row of the same batch, threads and size."""
    speedup: float | None = None
    """Median over the rounds of the baseline's time / this time, both of the same round."""
    speedup_low: float | None = None
    speedup_high: float | None = None
    """95 % bootstrap interval of `speedup`."""
    speedup_of_fastest: float | None = None
    """The same of both rows' fastest calls, a second estimate: where the two differ much, neither is to be believed."""
    artifact: str | None = None
    """File that it runs."""
    artifact_bytes: int | None = None
    load_seconds: float | None = None
    """From opening the files to being ready for the first call, imports of the engine included."""
    first_call_seconds: float | None = None
    """The first call; for a compiled row the compilation."""
    cold_seconds: float | None = None
    """From the start of a new Python process to the first mask."""
    peak_memory_mib: float | None = None
    """Largest resident size of the row's process."""
    device_memory_mib: float | None = None
    """What the row's process takes of the GPU's memory."""


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
    agreement: float | None = None
    """Share of this image's pixels with torch's class."""
    disagreement: str | None = None
    """Grey image, pixels whose class is not torch's in red."""


class ClassScore(Frozen):
    """One class on the whole table."""

    name: str
    iou: float | None
    accuracy: float | None
    precision: float | None
    pixels: int
    iou_delta: float | None = None
    """This IoU less torch's."""
    boundary_iou: float | None = None
    """Boundary IoU, see segdeploy.boundary."""
    boundary_delta: float | None = None
    """This boundary IoU less torch's."""


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
    """This mean IoU less torch's, 0.01 = one point; both over the classes that torch's scores have."""
    boundary_iou: float | None = None
    """Mean over the classes."""
    boundary_delta: float | None = None
    """This mean boundary IoU less torch's; both over the classes that torch's scores have."""
    label_agreement: float | None = None
    """Share of pixels with the same class as torch's."""
    worst: tuple[Picture, ...] = ()
    """The images on which it agrees least with torch, worst first; of torch itself, those of the lowest IoU."""
    per_class: tuple[ClassScore, ...]
    absent_classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true class; columns: predicted class; pixels."""


class BenchmarkResult(Frozen):
    """A whole benchmark."""

    schema_version: Literal[2] = 2
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
    """The first group's `Row.baseline`: the fastest torch row at the smallest batch."""
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
    gates: tuple[GateCheck, ...] = ()
    """Limits that were held against the rows; empty: there were none."""
    comparison: Comparison | None = None
    """What changed since an older report; None: none was named."""


def parse_result(text: str | bytes, name: str) -> BenchmarkResult:
    """`report.json` to a BenchmarkResult; ModelError, which speaks of it as `name`, where it is none."""
    try:
        return BenchmarkResult.model_validate_json(text)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        if first["loc"] == ("schema_version",):
            found = f"found schema {first['input']!r}; measure again with this segdeploy"
            raise ModelError(f"{name}: expected a report of schema 2, {found}") from e
        place = ".".join(map(str, first["loc"])) or "top"
        raise ModelError(f"{name}: not a report of segdeploy benchmark: {place}: {first['msg']}") from e


def read_result(path: Path) -> BenchmarkResult:
    """The report in a `report.json`, or in the folder that holds one.

    Raises:
        ModelError: there is none, or it is of another schema, or broken.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return parse_result(file.read_bytes(), str(file))
    except OSError as e:
        raise ModelError(f"{file}: expected the report.json of a benchmark: {e.strerror or e}") from e
