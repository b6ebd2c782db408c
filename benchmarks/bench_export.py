"""Time of `segdeploy export` against a plain `torch.onnx.export` and onnx.checker, each in a cold process, in turns.

    pip install "segdeploy[all-cpu]"
    python benchmarks/bench_export.py -o benchmarks/results/export_<hardware>_<yyyymmdd>.json
    python benchmarks/bench_export.py --quick                     # a minute: does it work?

Networks are those of `models.py`. Both sides begin with the start of Python and end with its end, and rebuild the same
network from the same weights. The plain side imports torch and what the network needs, calls
`torch.onnx.export(dynamo=True)` on the module from uint8 image to uint8 mask, saves, and lets onnx.checker look at the
file. `segdeploy export` also checks and writes hashes, names, types, shapes and size arithmetic of the graph, and what
TensorRT would say of it; it is called without --verify, so no images are run. Labels of both files are compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from models import MODELS, make_run
from turns import clean_environment, compare, take_turns

from segdeploy.environment import describe_machine
from segdeploy.files import write_json


def plain(run: Path, output: Path) -> None:
    """The rival, in a process of its own."""
    import onnx
    import torch

    from segdeploy.checkpoint import load_weights
    from segdeploy.model.segmenter import Deployed, build
    from segdeploy.model.spec import parse_spec
    from segdeploy.run_folder import MODEL_FOLDER, SPEC_FILE, WEIGHTS_FILE

    spec = parse_spec((run / MODEL_FOLDER / SPEC_FILE).read_bytes(), str(run))
    segmenter = build(spec)
    load_weights(run / MODEL_FOLDER / WEIGHTS_FILE, segmenter)
    size = (spec.preprocessing.height, spec.preprocessing.width)
    program = torch.onnx.export(
        Deployed(segmenter, spec.preprocessing).eval(),
        (torch.zeros((2, *size, 3), dtype=torch.uint8),),
        input_names=["image"],
        output_names=["mask"],
        dynamic_shapes={"image": {0: "batch"}},
        opset_version=20,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(output, external_data=False)
    onnx.checker.check_model(str(output), full_check=True)


def check_labels(ours: Path, theirs: Path, size: tuple[int, int]) -> float:
    """Share of equal labels on a noisy image."""
    import onnxruntime as ort

    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    found = [ort.InferenceSession(str(path)).run(None, {"image": image})[0] for path in (ours, theirs)]
    return float((found[0] == found[1]).mean())


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, nargs=2, default=(352, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one network, one round: not a measurement")
    parser.add_argument("--plain", type=Path, nargs=2, metavar=("RUN", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    if given.plain:
        plain(*given.plain)
        return
    if given.quick:
        given.models, given.rounds = given.models[:1], 1
    size = tuple(given.size)
    clean_environment()
    machine = describe_machine()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            run = make_run(name, size, Path(folder) / name)
            bundle, file = Path(folder) / "bundle", Path(folder) / "plain.onnx"
            sides = {
                "plain": [sys.executable, __file__, "--plain", str(run), str(file)],
                "segdeploy": [sys.executable, "-m", "segdeploy", "export", str(run), "-o", str(bundle)],
            }

            def fresh(side: str, bundle: Path = bundle, file: Path = file) -> None:
                shutil.rmtree(bundle, ignore_errors=True) if side == "segdeploy" else file.unlink(missing_ok=True)

            found = take_turns(sides, given.rounds, fresh)
            equal = check_labels(bundle / "model.onnx", file, size)
            results[name] = {**compare(found["seconds"], "plain"), "equal_labels": equal, **found}
    content = {"size": size, "rounds": given.rounds, "results": results, "machine": machine}
    print(json.dumps(content, indent=1))
    if given.output is not None:
        write_json(given.output, content)


if __name__ == "__main__":
    main()
