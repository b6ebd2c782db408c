"""Results to make pages of: a small one with awkward names, and a large one as a thorough run would give it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from segdeploy.benchmark.outcome import Change, Comparison, GateCheck, RowChange
from segdeploy.benchmark.result import Accuracy, BenchmarkResult, ClassScore, Latency, Picture, Row
from segdeploy.classes import ClassMap
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NASTY = "<b>&"
REASON = 'no compiler: <script>alert("x")</script> | g++ is missing'
MACHINE = {
    "cpu": "Example CPU", "cpu_features": ["avx2", "avx512_vnni"], "cores": 2, "memory_gib": None, "gpus": [],
    "os": "Linux", "python": "3.11.7", "load_average": 0.1,
    "packages": {"numpy": "2.0.0", "torch": "2.9.0", "onnxruntime": "1.32.0"},
}  # fmt: skip


def make_latency(p50, *, turns=30):
    return Latency(
        p50=p50, p90=p50 * 1.1, p99=p50 * 1.4, mean=p50 * 1.03, min=p50 * 0.97, samples=((p50, p50 * 1.01),) * turns
    )


def make_row(name, batch, p50, speedup=None, **changes):
    backend, _, variant = name.partition(" ")
    values = {
        "name": name, "backend": backend, "variant": variant, "precision": "fp32", "batch": batch, "threads": 2,
        "height": 96, "width": 128, "provider": "cpu" if backend == "torch" else "CPUExecutionProvider",
        "latency": make_latency(p50), "engine": make_latency(p50 * 0.9), "images_per_second": batch / p50 * 1e3,
        "file_to_file": make_latency(p50 + 8.125) if batch == 1 else None, "warmup_calls": 7, "steady": True,
        "rounds": 30, "repeated": 0, "disturbed": 0, "file_disturbed": 0,
        "agreement": 0.99876, "artifact": "model.onnx", "artifact_bytes": 16_543_210,
        "load_seconds": 0.3141, "first_call_seconds": 0.0421, "cold_seconds": 0.6543, "peak_memory_mib": 1234.56,
        "baseline": "torch eager",
    }  # fmt: skip
    if speedup:
        values |= dict(zip(("speedup", "speedup_low", "speedup_high"), speedup, strict=True))
    return Row(**{**values, **changes})


FAILED = {
    "status": "failed", "latency": None, "engine": None, "file_to_file": None, "images_per_second": None,
    "warmup_calls": None, "steady": None, "rounds": None, "repeated": None, "disturbed": None, "agreement": None,
    "load_seconds": None,
    "first_call_seconds": None, "cold_seconds": None, "peak_memory_mib": None, "provider": None,
}  # fmt: skip


def make_accuracy(name, ious, delta, agreement, confusion):
    return Accuracy(
        name=name, backend=name.split()[0], precision="fp32", images=7, mean_iou=sum(ious) / 2, pixel_accuracy=0.9,
        mean_class_accuracy=0.85, miou_delta=delta, label_agreement=agreement, boundary_iou=0.4012,
        boundary_delta=delta * 3,
        per_class=(
            ClassScore(name="road", iou=ious[0], accuracy=0.91, precision=0.92, pixels=90_000, iou_delta=delta * 2,
                       boundary_iou=0.41, boundary_delta=delta * 6),
            ClassScore(name=NASTY, iou=ious[1], accuracy=0.79, precision=0.8, pixels=10_000, iou_delta=0.0),
            ClassScore(name="fog", iou=None, accuracy=None, precision=None, pixels=0),
        ),
        worst=(make_picture('a"b.png', agreement),), absent_classes=("fog",), confusion=confusion,
    )  # fmt: skip


def make_picture(name, agreement):
    return Picture(
        name=name, image_iou=0.5, image=PNG, truth=PNG, predicted=PNG, errors=PNG, agreement=agreement, disagreement=PNG
    )


def make_result(**values):
    part = Part(name="fpn", config={}, distribution="segdeploy", version="0.1.0")
    theirs = Part(name="fancy", config={}, distribution="acme-decoders", version="3.1")
    names = values.pop("classes")
    size = {"height": values["rows"][0].height, "width": values["rows"][0].width}
    rng = np.random.default_rng(0)
    colors = tuple(tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in names)
    return BenchmarkResult(**{
        "created": "2026-02-03T10:11:12+00:00", "command": "segdeploy benchmark 'my model' --dataset test.csv",
        "model": "street <model>", "parameters": 4_012_345,
        "spec": ModelSpec(
            encoder=part, decoder=theirs, classes=ClassMap(names=names, colors=colors),
            preprocessing=Preprocessing(**size, resize="stretch", mean=(0.5,) * 3, std=(0.2,) * 3),
        ),
        "table": "test.csv", "images": 7, "data_sha256": "0123456789abcdef" * 4, "measured_at": "mask", "threads": 2,
        "rounds": 30, "warmup": 5, "baseline": "torch eager", "machine": MACHINE, "pictures": (),
        **values,
    })  # fmt: skip


@pytest.fixture(name="make_row")
def make_row_fixture():
    return make_row


@pytest.fixture
def result():
    return make_result(
        classes=("road", NASTY, "fog"),  # fog is in neither truth nor prediction
        rows=(
            make_row("torch eager", 1, 28.4321, (1.0, 1.0, 1.0)),
            make_row("onnxruntime", 1, 21.7049, (1.3099, 1.2812, 1.3378)),
            make_row("torch eager", 4, 104.321, (1.0, 1.0, 1.0)),
            make_row("onnxruntime", 4, 1.0, reason=REASON, **FAILED),
        ),
        accuracy=(
            make_accuracy("torch eager", (0.7124, 0.34), 0.0, 1.0, ((85_000, 5_000, 0), (2_100, 7_900, 0), (0,) * 3)),
            make_accuracy(
                "onnxruntime", (0.7120, 0.34), -0.0002, 0.999984, ((84_998, 5_002, 0), (2_100, 7_900, 0), (0,) * 3)
            ),
        ),
        backends={"onnxruntime": "segdeploy 0.1.0", "quick_one": "acme-quick 2.5"},
        pictures=(make_picture('a"b.png', None),),
        verification=(
            {"backend": "onnxruntime", "precision": "fp32", "target": "", "batch_size": 1, "images": 7,
             "agreement": 0.99998, "worst_agreement": 0.9991, "worst_image": "a.png", "reference_miou": 0.5262,
             "miou": 0.5256, "miou_drop": 0.0006, "worst_class_drop": 0.0012, "worst_class": "road", "passed": False,
             "reasons": ["mean IoU drops"]},
        ),
        notes=("the machine was *busy*, _very_ [x](y)",),
    )  # fmt: skip


NINETEEN = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain and other unpaved ground", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip
TWELVE = {  # name: precision, relative time, size in MiB, loss of mIoU
    "torch eager": ("fp32", 1.64, 15.4, 0.0),
    "torch channels_last": ("fp32", 1.12, 15.4, 0.0),
    "torch amp": ("bf16", 1.7, 15.4, 0.0004),
    "torch compile": ("fp32", 1.0, 15.4, 0.0),
    "onnxruntime": ("fp32", 0.93, 15.3, 0.0),
    "onnxruntime fp16": ("fp16", 1.05, 7.7, 0.0001),
    "onnxruntime int8": ("int8", 0.52, 4.4, 0.0029),
    "openvino": ("fp32", 0.87, 15.3, 0.0),
    "openvino bf16": ("bf16", 1.39, 15.3, 0.0007),
    "openvino int8": ("int8", 0.41, 4.4, 0.0312),
    "tensorrt fp16": ("fp16", None, None, None),
    "acme_quick_engine_with_a_long_name int8": ("int8", 0.6, 4.4, 0.0022),
}


def uri(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def scene(seed):
    """A street of sorts, its classes, a prediction with ragged contours, and where that is wrong."""
    rng = np.random.default_rng(seed)
    height, width = 120, 180
    y, x = np.mgrid[:height, :width]
    truth = np.where(y < 50, 2, 0) + (np.abs(x - 60 - 9 * seed) < 22) * (y > 40)
    found = np.roll(truth, (1, 2), (0, 1))
    found[rng.random((height, width)) < 0.01] = 1
    colors = rng.integers(40, 230, (4, 3))
    image = (np.stack([x, y, x + y], 2) % 255 * 0.4 + 60 + rng.integers(0, 30, (height, width, 1))).astype(np.uint8)
    wrong = image.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8)
    wrong[found != truth] = (220, 40, 40)
    pictures = [image, (image * 0.4 + colors[truth] * 0.6), (image * 0.4 + colors[found] * 0.6), wrong]
    return [uri(p.astype(np.uint8)) for p in pictures]


@pytest.fixture(scope="session")
def large_result():
    """12 rows x 2 batches x 2 thread counts, 19 classes of which one is absent, a row that failed everywhere."""
    rng = np.random.default_rng(7)
    scenes = [scene(seed) for seed in range(5)]
    rows = []
    for threads in (1, 2):
        for batch in (1, 4):
            for name, (precision, slow, size, _) in TWELVE.items():
                more = {"precision": precision, "threads": threads, "height": 352, "width": 480,
                        "baseline": "torch compile"}  # fmt: skip
                if slow is None:
                    reason = (
                        "no GPU that CUDA can use here: there is no driver, or it is older than this cuda-python "
                        "(cudaErrorInsufficientDriver); install a driver, or choose other backends with --backends"
                    )
                    rows.append(make_row(name, batch, 1.0, reason=reason, **more, **FAILED))
                    continue
                p50 = 76.1 * slow * batch**0.95 / threads**0.85 * float(rng.uniform(0.98, 1.02))
                at = 1 / slow * float(rng.uniform(0.98, 1.02))
                ratio = (1.0, 1.0, 1.0) if name == "torch compile" else (at, at * 0.985, at * 1.017)
                more |= {
                    "artifact_bytes": int(size * 2**20), "peak_memory_mib": 300 + 400 * slow + 60 * batch,
                    "load_seconds": 4.1 if name.startswith("torch") else 0.21, "repeated": 2 * threads,
                    "first_call_seconds": 41.3 if "compile" in name else p50 / 900,
                    "cold_seconds": 48.7 if "compile" in name else 5.2 if name.startswith("torch") else 0.62,
                    "disturbed": int(batch == 4), "steady": name != "openvino bf16",
                }  # fmt: skip
                rows.append(make_row(name, batch, p50, ratio, **more))
    accuracy = []
    ious = rng.uniform(0.3, 0.97, len(NINETEEN))
    for name, (precision, slow, _, loss) in TWELVE.items():
        if slow is None:
            continue
        deltas = -loss * rng.uniform(-0.6, 2.6, len(NINETEEN)) if name != "torch eager" else np.zeros(len(NINETEEN))
        agreement = 1 - loss * 3
        confusion = np.diag((ious * 1e5).astype(int)) + rng.integers(0, 900, (19, 19))
        confusion[16], confusion[:, 16] = 0, 0
        per_class = tuple(
            ClassScore(name=n, iou=None, accuracy=None, precision=None, pixels=0) if n == "train" else
            ClassScore(name=n, iou=float(ious[i] + deltas[i]), accuracy=float(ious[i] ** 0.5),
                       precision=float(ious[i] ** 0.6), pixels=int(confusion[i].sum()), iou_delta=float(deltas[i]),
                       boundary_iou=float((ious[i] + 2 * deltas[i]) * 0.7), boundary_delta=float(deltas[i] * 1.4))
            for i, n in enumerate(NINETEEN)
        )  # fmt: skip
        worst = tuple(
            Picture(name=f"frankfurt_{n:06d}_leftImg8bit.png", image_iou=0.4 + n / 50, image=s[0], truth=s[1],
                    predicted=s[2], errors=s[3], agreement=1 - loss * (9 - n), disagreement=s[3])
            for n, s in enumerate(scenes)
        )  # fmt: skip
        mean = float(np.nanmean([c.iou if c.iou is not None else np.nan for c in per_class]))
        accuracy.append(Accuracy(
            name=name, backend=name.split()[0], precision=precision, images=500, mean_iou=mean, pixel_accuracy=0.94,
            mean_class_accuracy=0.81, miou_delta=-loss, boundary_iou=0.51 - loss * 1.4, boundary_delta=-loss * 1.4,
            label_agreement=agreement, worst=worst, per_class=per_class, absent_classes=("train",),
            confusion=tuple(tuple(int(v) for v in line) for line in confusion),
        ))  # fmt: skip
    return make_result(
        model="cityscapes_bundle: fpn on mobilenetv3_large_100", classes=NINETEEN, rows=tuple(rows),
        accuracy=tuple(accuracy), images=500, table="val.csv", baseline="torch compile",
        backends={"torch": "segdeploy 0.1.0, torch 2.15.0", "onnxruntime": "segdeploy 0.1.0, onnxruntime 1.32.0"},
        notes=("onnxruntime fp16 computes in FP32 on a CPU, only slower",),
        gates=make_gates(), comparison=make_comparison(rows),
    )  # fmt: skip


def make_gates():
    row = "onnxruntime int8, batch 1, 1 thread"
    kept = GateCheck(gate="speedup>=1.5", row=row, metric="speedup", unit="x", operator=">=", limit=1.5, value=1.9231,
                     passed=True, message=f"{row}: speedup is 1.92x, allowed is >= 1.5")  # fmt: skip
    missed = GateCheck(gate="p99_ms[backend=onnxruntime,batch=1]<=25", row=row, metric="p99_ms", unit="ms",
                       operator="<=", limit=25, value=55.4321, passed=False,
                       message=f"{row}: p99_ms is 55.4 ms, allowed is <= 25")  # fmt: skip
    unknown = GateCheck(gate="miou_drop<=0.003", row="tensorrt fp16, batch 1, 1 thread", metric="miou_drop",
                        unit="fraction", operator="<=", limit=0.003, value=None, passed=False,
                        message="tensorrt fp16, batch 1, 1 thread: failed (not installed), so miou_drop<=0.003 is not kept")  # fmt: skip  # noqa: E501
    return (kept, missed, unknown)


def make_comparison(rows):
    changes = []
    for row in rows[:12]:
        key = {
            k: getattr(row, k)
            for k in ("name", "backend", "variant", "precision", "provider", "batch", "threads", "height", "width")
        }
        if row.latency is None:
            changes.append(RowChange(**key, verdict="failed in both", why="the library is not installed"))
            continue
        p50 = row.latency.p50
        changes.append(RowChange(
            **key, verdict="no measurable change", why="the interval includes no change",
            changes=(
                Change(metric="p50_ms", unit="ms", kind="ratio", old=p50 * 1.01, new=p50, change=-0.0099, low=-0.021,
                       high=0.004),
                Change(metric="miou", unit="fraction", kind="difference", old=0.6, new=0.6012, change=0.0012),
                Change(metric="size_mib", unit="MiB", kind="ratio", old=15.4, new=15.4, change=0.0),
            ),
        ))  # fmt: skip
    return Comparison(
        against="old.json", created="2026-01-02T03:04:05+00:00", verdict="Nothing became measurably slower or faster.",
        differences=("onnxruntime 1.31.0, now 1.32.0",), rows=tuple(changes),
    )  # fmt: skip
