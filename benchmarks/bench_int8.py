"""INT8 on onnxruntime's CPU kernels against FP32: speed side by side in one run, and mean IoU over whole tables.

    python benchmarks/bench_int8.py BUNDLE --calibrate TRAIN.csv --test TEST.csv [--test VAL.csv] -o RESULT.json

BUNDLE is what `segdeploy export` wrote. Both graphs take uint8 images and give uint8 labels, normalisation,
upsampling and ArgMax inside; they take turns on the same images, one call each, and each pair of calls gives one
ratio. Time is that of the wall clock; CPU time, which other jobs on the machine change less, stands beside it. The
graph for TensorRT is run by onnxruntime too, for its labels alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from segdeploy.bundle import open_model
from segdeploy.data.table import read_table
from segdeploy.environment import describe_machine
from segdeploy.evaluate import evaluate
from segdeploy.export.calibration import calibration_images
from segdeploy.export.quantize import quantize
from segdeploy.export.ranges import METHODS
from segdeploy.export.verify import Agreement, find_truth
from segdeploy.runtime.ort_providers import CPU, Provider
from segdeploy.runtime.ort_runner import OrtRunner
from segdeploy.runtime.runner import RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec

WARM_UP = 5


def open_graph(path: Path, threads: int | None = None) -> OrtRunner:
    """On onnxruntime's CPU kernels."""
    return OrtRunner(path, Provider(CPU), RunnerOptions(device="cpu", threads=threads))


def times(graphs: dict[str, Path], images: Sequence[NDArray[np.uint8]], threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of the wall clock and of the CPU for each graph, and FP32's over each other's."""
    runners = {name: open_graph(path, threads) for name, path in graphs.items()}
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    found: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in graphs} for clock in clocks}
    for i in range(-WARM_UP, rounds):
        for name in sorted(graphs, reverse=bool(i % 2)):  # neither always goes first
            started = {clock: read() for clock, read in clocks.items()}
            runners[name].run(images[i % len(images)])
            if i >= 0:
                for clock, read in clocks.items():
                    found[clock][name].append(1000 * (read() - started[clock]))
    return {clock: _summary(values) for clock, values in found.items()}


def _summary(values: dict[str, list[float]]) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    rows: dict[str, Any] = {}
    for name, taken in values.items():
        ratios = np.array(values["fp32"]) / np.array(taken)
        samples = np.median(draw.choice(ratios, (2000, len(ratios))), axis=1)
        rows[name] = {
            "ms_median": round(float(np.median(taken)), 2),
            "ms_least": round(min(taken), 2),
            "times_fp32": round(float(np.median(ratios)), 3),
            "times_fp32_95": [round(float(q), 3) for q in np.percentile(samples, [2.5, 97.5])],
            "times_fp32_least": round(min(values["fp32"]) / min(taken), 3),
        }
    return rows


def accuracy(graphs: dict[str, Path], samples: Sequence[Sample], spec: ModelSpec) -> dict[str, Any]:
    """Mean IoU of each graph, and the share of pixels with FP32's label."""
    with open_graph(graphs["fp32"]) as runner:
        truth = find_truth(runner, samples, spec)
    rows: dict[str, Any] = {"fp32": {"mean_iou": round(truth.scores.mean_iou, 5)}}
    for name, path in graphs.items():
        if name == "fp32":
            continue
        same = Agreement(truth)
        with open_graph(path) as runner:
            scores = evaluate(runner, samples, spec, boundary=False, on_labels=same.add).scores
        rows[name] = {
            "mean_iou": round(scores.mean_iou, 5),
            "drop": round(truth.scores.mean_iou - scores.mean_iou, 5),
            "agreement": round(same.mean, 5),
            "worst_agreement": round(same.worst[1], 5),
        }
    return rows


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--test", type=Path, action="append", default=[])
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--method", choices=METHODS, default="percentile")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()

    source = open_model(given.bundle)
    artifact = source.find("onnx")
    assert artifact is not None, "expected a bundle of segdeploy export"
    fp32 = source.path / artifact.file
    table = read_table(given.calibrate, source.spec.image_column, None, None)
    images = calibration_images(table, source.spec, given.count)
    started = time.perf_counter()
    made = quantize(onnx.load(fp32), images, method=given.method)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "size": [source.spec.preprocessing.width, source.spec.preprocessing.height],
        "calibration": {"method": given.method, "images": len(images)},
        "seconds_to_quantize": round(time.perf_counter() - started, 1),
        "kept_float": {
            target: [d.node for d in q.decisions if d.reason.startswith("left out")] for target, q in made.items()
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        graphs = {"fp32": fp32}
        for target, quantized in made.items():
            graphs[f"int8-{target}"] = Path(folder) / f"{target}.onnx"
            onnx.save(quantized.model, graphs[f"int8-{target}"])
        result["bytes"] = {name: path.stat().st_size for name, path in graphs.items()}
        result["accuracy"] = {t.stem: accuracy(graphs, read_table(t), source.spec) for t in given.test}
        raced = {name: graphs[name] for name in ("fp32", "int8-cpu")}
        shown = [images[i] for i in range(min(8, len(images)))]
        result["speed"] = {f"{n} threads": times(raced, shown, n, given.rounds) for n in given.threads}
    text = json.dumps(result, indent=1)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
