"""OpenVINO against ONNX Runtime, side by side in one run, and what the backend's settings do.

    pip install 'segdeploy[all-cpu]' segdeploy-openvino
    taskset -c 0,1 python benchmarks/bench_openvino.py --threads 2 > result.json

A small and a medium network with random weights (speed does not depend on them), exported for each size. Five rows
take turns, in an order that moves on by one each round; each turn is one call that is not timed and as many timed ones
as fit into a tenth of a second, at least two; each round gives one ratio per row.

    onnxruntime    the built-in backend
    openvino       this backend
    default hint   this backend's settings without INFERENCE_PRECISION_HINT: what OpenVINO chooses by itself
    fixed batch    this backend's settings, the graph reshaped to the batch size before it is compiled
    pinned         this backend's settings, with threads pinned to cores
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from segdeploy.bundle import Bundle, artifact
from segdeploy.classes import ClassMap, default_colors
from segdeploy.environment import available_cores, describe_machine
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.progress import progress
from segdeploy.runtime.runner import RunnerOptions, open_runner

from segdeploy_openvino import float_types, import_openvino, properties, short_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Call = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

TURN_SECONDS = 0.1
CLASSES = 11
MODELS = {
    "fpn on mobilenetv3_large_100": (("timm", {"model_name": "mobilenetv3_large_100"}), "fpn"),
    "segformer on convnextv2_atto": (("convnextv2", {"model_name": "convnextv2_atto"}), "segformer"),
}


def export(name: str, size: int, folder: Path) -> Bundle:
    """A bundle of one ONNX file, for images of `size` x `size`."""
    from segdeploy.export.onnx_graph import export_onnx
    from segdeploy.model.segmenter import build

    (encoder, config), decoder = MODELS[name]

    def part(name: str, config: dict[str, Any]) -> Part:
        return Part(name=name, config=config, distribution="segdeploy", version="0")

    names = tuple(f"class {i}" for i in range(CLASSES))
    spec = ModelSpec(
        encoder=part(encoder, {**config, "use_pretrained": False}),
        decoder=part(decoder, {}),
        classes=ClassMap(names=names, colors=default_colors(CLASSES)),
        preprocessing=Preprocessing(
            height=size, width=size, resize="stretch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
    )
    folder.mkdir()
    export_onnx(build(spec).eval(), spec, folder / "model.onnx")
    return Bundle(folder, spec, (artifact(folder, "model.onnx", "onnx", "fp32"),))


def compiled(path: Path, changes: dict[str, Any], threads: int, shape: tuple[int, ...] | None = None) -> Any:
    """OpenVINO's compiled model with the backend's settings and `changes` to them; None takes one out."""
    core = import_openvino().Core()
    model = core.read_model(str(path))
    if shape is not None:
        model.reshape(shape)
    settings = {**properties(threads), **changes}
    return core.compile_model(model, "CPU", {k: v for k, v in settings.items() if v is not None})


def caller(model: Any) -> Call:
    """The backend's way to run a compiled model."""
    tensor, request = import_openvino().Tensor, model.create_infer_request()

    def call(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        request.set_tensor("image", tensor(image))
        request.start_async()
        request.wait()
        labels: NDArray[np.uint8] = request.get_tensor("mask").data.copy()
        return labels

    return call


def take_turn(call: Call, image: NDArray[np.uint8]) -> list[float]:
    """Milliseconds of each timed call."""
    call(image)
    samples: list[float] = []
    ends = time.perf_counter() + TURN_SECONDS
    while len(samples) < 2 or time.perf_counter() < ends:
        started = time.perf_counter()
        call(image)
        samples.append((time.perf_counter() - started) * 1e3)
    return samples


def measure(bundle: Bundle, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """All rows of one model at one batch size."""
    side = bundle.spec.preprocessing.height
    image = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    path = bundle.path / "model.onnx"
    others = {
        "default hint": compiled(path, {"INFERENCE_PRECISION_HINT": None}, threads),
        "fixed batch": compiled(path, {}, threads, image.shape),
        "pinned": compiled(path, {"ENABLE_CPU_PINNING": True}, threads),
    }
    options = RunnerOptions(threads=threads, device="cpu")
    with open_runner(bundle, "onnxruntime", options) as theirs, open_runner(bundle, "openvino", options) as ours:
        calls: dict[str, Call] = {"onnxruntime": theirs.run, "openvino": ours.run}
        calls |= {name: caller(model) for name, model in others.items()}
        first: dict[str, float] = {}
        for name, call in calls.items():
            started = time.perf_counter()
            call(image)
            first[name] = (time.perf_counter() - started) * 1e3
        times: dict[str, list[list[float]]] = {name: [] for name in calls}
        for turn in range(rounds):
            names = [*calls][turn % len(calls) :] + [*calls][: turn % len(calls)]
            for name in names:
                times[name].append(take_turn(calls[name], image))
    medians = {name: np.array([np.median(t) for t in turns]) for name, turns in times.items()}
    rows = {}
    for name, found in medians.items():
        ratio = medians["onnxruntime"] / found
        rows[name] = {
            "milliseconds": round(float(np.median(found)), 2),
            "first_call_milliseconds": round(first[name], 1),
            "times_as_fast_as_onnxruntime": {
                "median": round(float(np.median(ratio)), 3),
                "min": round(float(ratio.min()), 3),
                "max": round(float(ratio.max()), 3),
            },
        }
    rows["default hint"]["computed_in"] = float_types(others["default hint"])
    return rows


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of the square images, pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    machine = describe_machine()  # with the load before our own begins
    results = []
    cases = [(name, size) for name in MODELS for size in arguments.sizes]
    with tempfile.TemporaryDirectory() as folder, progress("measuring") as step:
        for number, (name, size) in enumerate(cases):
            step(number, len(cases))
            bundle = export(name, size, Path(folder) / str(number))
            for batch in arguments.batches:
                rows = measure(bundle, batch, arguments.threads, arguments.rounds)
                results.append({"model": name, "size": size, "batch": batch, "rows": rows})
        step(len(cases), len(cases))
    print(
        json.dumps(
            {
                "results": results,
                "threads": arguments.threads,
                "rounds": arguments.rounds,
                "openvino": short_version(import_openvino()),
                "machine": machine,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
