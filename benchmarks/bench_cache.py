"""Time to read an epoch, side by side in one run: decoding each time, from memory, from a mapped file.

    pip install segdeploy
    python benchmarks/bench_cache.py --count 200 --source 480x640 --size 256x256

The pictures are generated. One epoch is every sample once, in a new order each round, in batches, as training reads
them. The three ways take turns, in an order that moves on by one each round; each round gives one ratio per way. The
caches are filled before the first round, so the rounds show every epoch but the first. The file stays in the system's
page cache where memory allows: then its time is that of the mapping, and not of the disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from segdeploy.classes import ClassMap
from segdeploy.config.preprocessing import Cache
from segdeploy.data.dataset import Dataset
from segdeploy.data.demo import CLASS_COLORS, CLASS_NAMES, generate
from segdeploy.data.table import read_table
from segdeploy.environment import describe_machine
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.progress import progress

BATCH = 8


def build_spec(height: int, width: int) -> ModelSpec:
    """As much of a model as reading needs."""
    nothing = Part(name="none", config={}, distribution="none", version="0")
    return ModelSpec(
        encoder=nothing,
        decoder=nothing,
        classes=ClassMap(names=CLASS_NAMES, colors=CLASS_COLORS, encoding="class_id"),
        preprocessing=Preprocessing(
            height=height, width=width, resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
        ),
    )


def read_epoch(data: Dataset, order: list[int]) -> float:
    """Seconds to read every sample once."""
    started = time.perf_counter()
    seen = sum(len(images) for images, _ in data.batches(order, BATCH))
    seconds = time.perf_counter() - started
    if seen != len(data):
        raise RuntimeError(f"read {seen} of {len(data)} samples")
    return seconds


def size_of(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH, pixels."""
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    """Read, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--source", type=size_of, default=(480, 640), help="size of the files, HEIGHTxWIDTH")
    parser.add_argument("--size", type=size_of, default=(256, 256), help="size of the network's input, HEIGHTxWIDTH")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--directory", help="folder of the mapped file; default: see preprocessing.cache")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with progress("generating") as step:
            samples = read_table(generate(Path(folder), count=arguments.count, size=arguments.source, progress=step))
        spec = build_spec(*arguments.size)
        ways = {
            "decode": Dataset(samples, spec, Cache(mode="none")),
            "memory": Dataset(samples, spec, Cache(mode="memory")),
            "mapped": Dataset(samples, spec, Cache(mode="disk", directory=arguments.directory)),
        }
        first = {name: read_epoch(data, list(range(len(samples)))) for name, data in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(arguments.rounds):
            order = np.random.default_rng(turn).permutation(len(samples)).tolist()
            names = [*ways][turn % 3 :] + [*ways][: turn % 3]
            for name in names:
                seconds[name].append(read_epoch(ways[name], order))
    ratios = {name: np.array(seconds["decode"]) / np.array(s) for name, s in seconds.items() if name != "decode"}
    print(
        json.dumps(
            {
                "epoch_milliseconds": {k: round(float(np.median(v)) * 1e3, 2) for k, v in seconds.items()},
                "first_epoch_milliseconds": {k: round(v * 1e3, 2) for k, v in first.items()},
                "times_faster_than_decoding": {
                    k: {"median": round(float(np.median(v)), 1), "min": round(v.min(), 1), "max": round(v.max(), 1)}
                    for k, v in ratios.items()
                },
                "caches": [data.describe_cache() for data in ways.values()],
                "samples": len(samples),
                "source": arguments.source,
                "size": arguments.size,
                "batch": BATCH,
                "rounds": arguments.rounds,
                "machine": describe_machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
