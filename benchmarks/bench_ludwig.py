"""Training throughput of the same configuration file in Ludwig and in segdeploy: encoder `unet`, decoder `unet`.

    python3.12 -m venv ludwig && ludwig/bin/pip install ludwig           # needs Python 3.12
    python benchmarks/bench_ludwig.py --ludwig ludwig/bin/python -o result.json

Both train on the same generated pictures with the same batch size, optimiser and learning rate, on the same number of
threads, each in a process of its own, and take turns in blocks of steps; each round gives one ratio, and a round in
which other work had the cores does not count. Only steps are timed, with the reading of their batches; preprocessing
and validation are not. Ludwig's side is its own trainer, stopped and let go by a callback; segdeploy's is the feed and
the step of `segdeploy train`, as in bench_train.py, with OMP_WAIT_POLICY=PASSIVE, as its commands set it.

Ludwig has one U-Net. Ours of the same file has strided convolutions for its max pooling and a narrower decoder, so it
is smaller; a second one, with an encoder that Ludwig's decoder cannot have, is of its size. Parameters are printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_train
import numpy as np
from bench_train import OURS, Sides
from PIL import Image
from processes import Side, environment_of, take_turns

from segdeploy.benchmark.timing import paired_ratio
from segdeploy.classes import IGNORE
from segdeploy.config import load_config
from segdeploy.data.demo import generate
from segdeploy.environment import describe_machine
from segdeploy.files import write_json

# What runs under Ludwig's Python, with nothing of segdeploy.
THEIRS = """
import json, sys, time, types
import importlib.metadata as metadata
from importlib.machinery import ModuleSpec
import torch
# Its last version wants an older torch than ours, and both sides shall run the same one; nothing here is sound.
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
from ludwig.api import LudwigModel
from ludwig.callbacks import Callback

config, table, folder, steps, threads = json.loads(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:])
torch.set_num_threads(threads)

class Blocks(Callback):
    left = None

    def wait(self):
        if not sys.stdin.readline():
            raise SystemExit
        self.left, self.seconds = steps, 0.0

    def on_batch_start(self, trainer, progress_tracker, save_path, **kwargs):
        if self.left is None:
            versions = {name: metadata.version(name) for name in ("ludwig", "torch")}
            parameters = sum(p.numel() for p in trainer.model.parameters())
            print("ABOUT", json.dumps({"parameters": parameters, "versions": versions}))
            self.wait()
        self.start = time.perf_counter()

    def on_batch_end(self, trainer, progress_tracker, save_path, **kwargs):
        self.seconds += time.perf_counter() - self.start
        self.left -= 1
        if not self.left:
            print("SECONDS", self.seconds, flush=True)
            self.wait()

model = LudwigModel(config, logging_level=40, callbacks=[Blocks()])
model.train(dataset=table, output_directory=folder, skip_save_processed_input=True, skip_save_progress=True)
"""


SAME_SIZE = "segdeploy, resnet50"


def configuration(size: int, batch: int, encoder: dict[str, Any]) -> dict[str, Any]:
    """One for both, but for the encoder."""
    return {
        "input_features": [
            {
                "name": "image",
                "type": "image",
                "preprocessing": {"height": size, "width": size, "num_channels": 3},
                "encoder": encoder,
            }
        ],
        "output_features": [
            {
                "name": "mask",
                "type": "image",
                "preprocessing": {"height": size, "width": size, "num_channels": 1, "num_classes": 7},
                "decoder": {"type": "unet", "num_classes": 7},
                "loss": {"type": "softmax_cross_entropy"},
            }
        ],
        "preprocessing": {"split": {"type": "fixed", "column": "split"}},
        "trainer": {
            "epochs": 1000,  # both are ended sooner
            "batch_size": batch,
            "learning_rate": 1e-3,
            "optimizer": {"type": "adamw"},
        },
    }


def write_table(folder: Path, training: int, size: int) -> Path:
    """Generated pictures, and an eighth more for validation; Ludwig's fixed split has numbers, and it ignores none."""
    with generate(folder, count=training * 9 // 8, size=(size, size)).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    table = folder / "both.csv"
    with table.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "mask", "split"])
        for number, row in enumerate(rows):
            mask = Image.open(folder / row["mask"])
            mask.point(lambda value: 0 if value == IGNORE else value).save(folder / row["mask"])
            writer.writerow([str(folder / row["image"]), str(folder / row["mask"]), int(number >= training)])
    return table


def main() -> None:
    """Run both in turns and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ludwig", required=True, help="the Python that Ludwig is installed in")
    parser.add_argument("-o", "--output", type=Path, help="write the result there, too")
    parser.add_argument("--size", type=int, default=128, help="height and width of the pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="steps in a block")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    size, batch, steps, threads = arguments.size, arguments.batch, arguments.steps, str(arguments.threads)
    configs = {
        OURS: configuration(size, batch, {"type": "unet"}),
        SAME_SIZE: configuration(size, batch, {"type": "timm", "model_name": "resnet50", "use_pretrained": False}),
    }
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder), 8 * batch, size)
        theirs = environment_of(ours=False)
        theirs.pop("PYTHONPATH", None)  # another Python has other packages
        words = [arguments.ludwig, "-c", THEIRS, json.dumps(configs[OURS]), str(table), folder, str(steps), threads]
        ludwig = Side(words, theirs, arguments.threads)
        running = {"ludwig": ludwig}
        parameters = {}
        for number, (name, config) in enumerate(configs.items()):
            path = Path(folder, f"{number}.yaml")
            path.write_text(json.dumps(config))  # which YAML contains
            network = Sides(load_config(path), table, batch).network()[1]
            parameters[name] = sum(p.numel() for p in network.parameters())
            words = [sys.executable, bench_train.__file__, str(table), "-c", str(path), "--batch", str(batch),
                     "--steps", str(steps), "--threads", threads, "--side", OURS]  # fmt: skip
            running[name] = Side(words, environment_of(ours=True), arguments.threads)
        found = take_turns(running, arguments.rounds)
    about = json.loads(next(line for line in ludwig.said if line.startswith("ABOUT ")).removeprefix("ABOUT "))
    ratios = {}
    for name in configs:
        median, low, high = paired_ratio([[v] for v in found.seconds["ludwig"]], [[v] for v in found.seconds[name]])
        ratios[name] = {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}
    images = batch * steps
    result = {
        "images_per_second": {k: round(images / float(np.median(v)), 2) for k, v in found.seconds.items()},
        "times_as_fast_as_ludwig": ratios,
        "parameters": parameters | {"ludwig": about["parameters"]},
        "versions_beside_ludwig": about["versions"],
        "size": size,
        "batch": batch,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "rounds_disturbed": found.disturbed,
        "steps": steps,
        "seconds": found.seconds,
        "configs": configs,
        "machine": describe_machine(),
    }
    if arguments.output:
        write_json(arguments.output, result)
    print(json.dumps({k: v for k, v in result.items() if k not in ("seconds", "configs")}, indent=2))


if __name__ == "__main__":
    main()
