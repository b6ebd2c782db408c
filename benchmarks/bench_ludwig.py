"""Training throughput of the same configuration file in Ludwig and in segdeploy: encoder `unet`, decoder `unet`.

    python3.12 -m venv ludwig && ludwig/bin/pip install ludwig           # needs Python 3.12
    python benchmarks/bench_ludwig.py --ludwig ludwig/bin/python -o result.json

Both train on the same generated pictures with the same batch size, optimiser and learning rate, on the same number of
threads, each in a process of its own, and take turns. Counted is the second epoch of a run from its first batch to its
last; checks, preprocessing, the first epoch, validation and saving are not. segdeploy's side has
OMP_WAIT_POLICY=PASSIVE, as its commands set it; nothing watches for other work, so the machine has to be idle.
Ludwig's U-Net has max pooling where ours has strided convolutions, so parameters and labels differ; both are printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from processes import environment_of

from segdeploy.benchmark.timing import paired_ratio
from segdeploy.classes import IGNORE
from segdeploy.data.demo import generate
from segdeploy.environment import describe_machine
from segdeploy.files import write_json

EPOCHS = 2

# What runs under Ludwig's Python, with nothing of segdeploy.
THEIRS = """
import json, sys, time, types
from importlib.machinery import ModuleSpec
import torch
# Its last version wants an older torch than ours, and both sides shall run the same one; nothing here is sound.
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
from ludwig.api import LudwigModel
from ludwig.callbacks import Callback

config, table, threads = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)

class Clock(Callback):
    def on_epoch_start(self, trainer, progress_tracker, save_path, **kwargs):
        self.first, self.batches = None, 0

    def on_batch_start(self, trainer, progress_tracker, save_path, **kwargs):
        self.first = self.first or time.perf_counter()

    def on_batch_end(self, trainer, progress_tracker, save_path, **kwargs):
        self.last = time.perf_counter()
        self.batches += 1

clock = Clock()
model = LudwigModel(config, logging_level=40, callbacks=[clock])
model.train(dataset=table, output_directory=sys.argv[4], skip_save_processed_input=True, skip_save_progress=True)
import importlib.metadata as metadata
print("RESULT", json.dumps({
    "images_per_second": clock.batches * config["trainer"]["batch_size"] / (clock.last - clock.first),
    "parameters": sum(p.numel() for p in model.model.parameters()),
    "batches": clock.batches,
    "versions": {name: metadata.version(name) for name in ("ludwig", "torch")},
}))
"""

OURS = """
import json, sys
from pathlib import Path
import torch
from segdeploy.config import config_from_dict
from segdeploy.data.table import Tables
from segdeploy.train.loop import train

config, threads = json.loads(sys.argv[1]), int(sys.argv[3])
torch.set_num_threads(threads)
result = train(config_from_dict(config, "bench"), Tables(dataset=Path(sys.argv[2])), Path(sys.argv[4]), device="cpu")
about = json.loads((result.run / "description.json").read_text())
row = result.history[-1]
print("RESULT", json.dumps({"images_per_second": row["training_images_per_second"], "parameters": about["parameters"]}))
"""


def configuration(size: int, batch: int) -> dict[str, Any]:
    """One for both."""
    return {
        "input_features": [
            {
                "name": "image",
                "type": "image",
                "preprocessing": {"height": size, "width": size, "num_channels": 3},
                "encoder": {"type": "unet"},
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
            "epochs": EPOCHS,
            "batch_size": batch,
            "learning_rate": 1e-3,
            "optimizer": {"type": "adamw"},
        },
    }


def write_table(folder: Path, count: int, size: int) -> Path:
    """Generated pictures, seven eighths of them for training; Ludwig's fixed split has numbers, and it ignores none."""
    with generate(folder, count=count, size=(size, size)).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    table = folder / "both.csv"
    with table.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "mask", "split"])
        for number, row in enumerate(rows):
            mask = Image.open(folder / row["mask"])
            mask.point(lambda value: 0 if value == IGNORE else value).save(folder / row["mask"])
            part = 1 if number >= count * 7 // 8 else 0
            writer.writerow([str(folder / row["image"]), str(folder / row["mask"]), part])
    return table


def once(python: str, program: str, config: dict[str, Any], table: Path, threads: int, ours: bool) -> dict[str, Any]:
    """Run one side to its end; what it printed."""
    environment = environment_of(ours=ours)
    environment.pop("PYTHONPATH", None)  # another Python has other packages
    with tempfile.TemporaryDirectory() as folder:
        words = [python, "-c", program, json.dumps(config), str(table), str(threads), folder]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not found:
        raise SystemExit(f"{python} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    row: dict[str, Any] = json.loads(found[-1].removeprefix("RESULT "))
    return row


def main() -> None:
    """Run both in turns and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ludwig", required=True, help="the Python that Ludwig is installed in")
    parser.add_argument("-o", "--output", type=Path, help="write the result there, too")
    parser.add_argument("--size", type=int, default=128, help="height and width of the pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--count", type=int, default=64, help="pictures in all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    config = configuration(arguments.size, arguments.batch)
    found: dict[str, list[dict[str, Any]]] = {"segdeploy": [], "ludwig": []}
    sides = {"segdeploy": (sys.executable, OURS, True), "ludwig": (arguments.ludwig, THEIRS, False)}
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder), arguments.count, arguments.size)
        for turn in range(arguments.rounds):
            for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                python, program, ours = sides[name]
                found[name].append(once(python, program, config, table, arguments.threads, ours))
                print(f"round {turn + 1} {name}: {found[name][-1]['images_per_second']:.2f} images/s", flush=True)
    paces = {name: [row["images_per_second"] for row in rows] for name, rows in found.items()}
    median, low, high = paired_ratio([[v] for v in paces["segdeploy"]], [[v] for v in paces["ludwig"]])
    result = {
        "images_per_second": {name: round(float(np.median(values)), 2) for name, values in paces.items()},
        "times_as_fast_as_ludwig": {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)},
        "parameters": {name: rows[0]["parameters"] for name, rows in found.items()},
        "versions_beside_ludwig": found["ludwig"][0]["versions"],
        "size": arguments.size,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "rounds": found,
        "config": config,
        "machine": describe_machine(),
    }
    if arguments.output:
        write_json(arguments.output, result)
    print(json.dumps({k: v for k, v in result.items() if k not in ("rounds", "config")}, indent=2))


if __name__ == "__main__":
    main()
