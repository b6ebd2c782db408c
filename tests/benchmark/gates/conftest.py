"""Results made by hand: rows that took turns on a machine with noise, and scores counted on real label maps."""

import numpy as np
import pytest

from segdeploy.benchmark.result import Accuracy, BenchmarkResult, ClassScore, Latency, Row
from segdeploy.boundary import boundary_counts
from segdeploy.classes import ClassMap
from segdeploy.metrics import Scores, confusion_matrix, none_if_nan
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

CLASSES = ("sky", "road", "car")
TIMES = {"torch eager": 20.0, "torch channels_last": 16.0, "onnxruntime": 10.0, "onnxruntime int8": 6.0}
MACHINE = {
    "cpu": "Example CPU", "cpu_features": ["avx2"], "cores": 2, "memory_gib": 8.0, "gpus": [], "os": "Linux",
    "python": "3.11.7", "load_average": 0.1, "packages": {"onnxruntime": "1.32.0", "torch": "2.9.0"},
}  # fmt: skip


def latency(rounds):
    values = np.concatenate(rounds)
    p50, p90, p99 = (float(v) for v in np.percentile(values, (50, 90, 99)))
    samples = tuple(tuple(float(v) for v in turn) for turn in rounds)
    return Latency(p50=p50, p90=p90, p99=p99, mean=float(values.mean()), min=float(values.min()), samples=samples)


def label_map(shift=0):
    """An upright bar per class, 200x200; shifted to the right by so many pixels."""
    columns = (np.arange(200) - shift).clip(0) // 67
    return np.broadcast_to(columns.astype(np.uint8), (200, 200)).copy()


def scored(name, precision, predicted, torch):
    """The scores of one label map against `label_map()`, and against torch's map."""
    truth, count = label_map(), len(CLASSES)

    def of(found):
        return Scores(confusion_matrix(truth, found, count), boundary_counts(truth, found, count))

    mine, theirs = of(predicted), of(torch)
    per_class = [
        ClassScore(
            name=c, iou=none_if_nan(mine.iou[i]), accuracy=none_if_nan(mine.accuracy[i]),
            precision=none_if_nan(mine.precision[i]), pixels=int(mine.confusion[i].sum()),
            iou_delta=none_if_nan(mine.iou[i] - theirs.iou[i]), boundary_iou=none_if_nan(mine.boundary_iou[i]),
            boundary_delta=none_if_nan(mine.boundary_iou[i] - theirs.boundary_iou[i]),
        )
        for i, c in enumerate(CLASSES)
    ]  # fmt: skip
    return Accuracy(
        name=name, backend=name.split()[0], precision=precision, images=1, mean_iou=mine.mean_iou,
        pixel_accuracy=mine.pixel_accuracy, mean_class_accuracy=mine.mean_accuracy,
        miou_delta=mine.mean_iou - theirs.mean_iou, boundary_iou=mine.mean_boundary_iou,
        boundary_delta=mine.mean_boundary_iou - theirs.mean_boundary_iou,
        label_agreement=float((predicted == torch).mean()), per_class=tuple(per_class),
        confusion=tuple(tuple(int(v) for v in line) for line in mine.confusion),
    )  # fmt: skip


def make_result(times=TIMES, *, seed=0, rounds=30, batches=(1,), drift=1.0, maps=None, **changes):
    """Rows whose calls take `times` ms per image, with 3 % of noise per round on the machine and 2 % per call.

    `drift` makes the whole machine slower, `maps` are label maps by a row's name (torch's own where there is none);
    a time of None is a row that failed.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for batch in batches:
        machine = drift * rng.lognormal(0, 0.03, rounds)
        measured = {
            name: [batch * ms * m * rng.lognormal(0, 0.02, 4) for m in machine] for name, ms in times.items() if ms
        }
        torch = {n: np.median([np.median(t) for t in r]) for n, r in measured.items() if n.startswith("torch")}
        baseline = min(torch, key=torch.get, default=None)
        for name in times:
            backend, *rest = name.split()
            precision = "int8" if "int8" in rest else "fp32"
            shape = {
                "name": name, "backend": backend, "variant": " ".join(w for w in rest if w not in ("int8", "eager")),
                "precision": precision, "batch": batch, "threads": 1, "height": 200, "width": 200,
                "provider": "cpu" if backend == "torch" else "CPUExecutionProvider",
            }  # fmt: skip
            if times[name] is None:
                rows.append(Row(**shape, status="failed", reason="the engine crashed"))
                continue
            mine = latency(measured[name])
            speedup = {}
            if baseline:
                turns = zip(measured[baseline], measured[name], strict=True)
                low, mid, high = np.percentile([np.median(b) / np.median(m) for b, m in turns], (30, 50, 70))
                speedup = {"baseline": baseline, "speedup": mid, "speedup_low": low, "speedup_high": high}
            rows.append(
                Row(
                    **shape, latency=mine, engine=latency([t * 0.9 for t in measured[name]]),
                    images_per_second=batch / mine.p50 * 1e3, rounds=rounds, repeated=0, disturbed=0, steady=True,
                    **speedup, artifact="model.onnx", artifact_bytes=10 * 2**20,
                    load_seconds=0.5, first_call_seconds=0.04, cold_seconds=0.7, peak_memory_mib=300.0,
                )
            )  # fmt: skip
    maps = {} if maps is None else maps
    done = {r.name: r.precision for r in rows if r.latency}
    part = Part(name="fpn", config={}, distribution="segdeploy", version="0.1.0")
    about = {
        "created": "2026-02-03T10:11:12+00:00", "command": "segdeploy benchmark m --dataset test.csv",
        "model": "street: fpn on timm", "parameters": 4_012_345,
        "spec": ModelSpec(
            encoder=part, decoder=part, classes=ClassMap(names=CLASSES, colors=((0, 0, 0), (9, 9, 9), (99, 9, 9))),
            preprocessing=Preprocessing(height=200, width=200, resize="stretch", mean=(0.5,) * 3, std=(0.2,) * 3),
        ),
        "table": "test.csv", "images": 1, "data_sha256": "ab" * 32, "measured_at": "mask", "threads": 1,
        "rounds": rounds, "warmup": 5, "baseline": "torch channels_last", "machine": MACHINE, "rows": tuple(rows),
        "accuracy": tuple(scored(n, p, maps.get(n, label_map()), label_map()) for n, p in done.items()), "pictures": (),
    }  # fmt: skip
    return BenchmarkResult(**(about | changes))


@pytest.fixture
def made():
    """`make_result`."""
    return make_result


@pytest.fixture
def labels():
    """`label_map`."""
    return label_map


@pytest.fixture
def change():
    """A result with some fields of the rows of a name changed."""

    def changed(result, name, **fields):
        rows = tuple(r.model_copy(update=fields) if r.name == name else r for r in result.rows)
        return result.model_copy(update={"rows": rows})

    return changed
