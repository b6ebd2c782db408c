"""What evaluation costs beside the engine: `evaluate` against the engine alone, side by side in one run.

    python benchmarks/bench_evaluate.py BUNDLE TEST.csv

Sides, in turns on the same samples with the same engine, of which only the threads change:

    evaluate   segdeploy's: decoding, resizing, the engine, confusion matrix and boundary IoU at the masks' own size
    sequence   the same steps one after the other in one thread
    engine     the engine alone, on images that lie in memory at its size

`wall_over_engine` is a side's wall clock over the time inside its own engine calls. That time grows where decoding and
scoring take the engine's cores, so `wall_over_bare` and `cpu_over_bare` compare with the engine alone: with as many
engine threads as cores nothing is free, and the second says what the work beside the engine is. The numbers found by
`evaluate` and `sequence` must be equal.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.boundary import boundary_counts
from segdeploy.bundle import open_model
from segdeploy.data.images import read_image
from segdeploy.data.masks import read_mask
from segdeploy.data.resize import resize_image, restore_mask
from segdeploy.data.table import read_table
from segdeploy.environment import describe_machine
from segdeploy.evaluate import evaluate
from segdeploy.metrics import Scores, confusion_matrix
from segdeploy.runtime.runner import Runner, RunnerOptions, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec


class Timed(Runner):
    """A runner that adds up the time inside its calls."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.seconds = runner, 0.0

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        started = time.perf_counter()
        labels = self.runner.run(image)
        self.seconds += time.perf_counter() - started
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return self.runner.describe()


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of one side in one round: wall clock, inside engine calls, CPU of all threads."""

    wall: float
    engine: float
    cpu: float


def in_sequence(runner: Runner, samples: Sequence[Sample], spec: ModelSpec) -> Scores:
    """What `evaluate` does, in one thread."""
    count = len(spec.classes)
    confusion, near = np.zeros((count, count), np.int64), np.zeros((2, count), np.int64)
    for sample in samples:
        assert sample.mask is not None, f"{sample.image} has no mask"
        target = read_mask(sample.mask, spec.classes)
        image = resize_image(read_image(sample.image), spec.preprocessing)
        found = restore_mask(runner.run(np.stack([image]))[0], target.shape, spec.preprocessing)
        confusion += confusion_matrix(target, found, count)
        near += boundary_counts(target, found, count)
    return Scores(confusion, near)


def timed(runner: Timed, work: Callable[[], Any]) -> Turn:
    """One turn of a side."""
    runner.seconds = 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Turn(time.perf_counter() - wall, runner.seconds, time.process_time() - cpu)


def measure(runner: Timed, samples: Sequence[Sample], spec: ModelSpec, rounds: int) -> dict[str, Any]:
    """All sides in turns."""
    images = [np.stack([resize_image(read_image(s.image), spec.preprocessing)]) for s in samples]
    scores = evaluate(runner, samples, spec).scores
    plain = in_sequence(runner, samples, spec)
    np.testing.assert_array_equal(scores.confusion, plain.confusion)
    np.testing.assert_array_equal(scores.boundary, plain.boundary)
    sides: dict[str, Callable[[], Any]] = {
        "evaluate": lambda: evaluate(runner, samples, spec),
        "sequence": lambda: in_sequence(runner, samples, spec),
        "engine": lambda: [runner.run(image) for image in images],
    }
    names = list(sides)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in (names[(turn + i) % len(names)] for i in range(len(names))):
            turns[name].append(timed(runner, sides[name]))
    bare = turns["engine"]
    return {
        name: {
            "wall_seconds": _spread([t.wall for t in taken]),
            "cpu_seconds": _spread([t.cpu for t in taken]),
            "wall_over_engine": _spread([t.wall / t.engine for t in taken]),
            "wall_over_bare": _spread([t.wall / b.wall for t, b in zip(taken, bare, strict=True)]),
            "cpu_over_bare": _spread([t.cpu / b.cpu for t, b in zip(taken, bare, strict=True)]),
        }
        for name, taken in turns.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 4),
        "least": round(min(values), 4),
        "most": round(max(values), 4),
    }


def main() -> None:
    """Run all sides and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--images", type=int, help="the table's first; default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the engine")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    bundle = open_model(given.bundle)
    samples = read_table(given.table, bundle.spec.image_column, bundle.spec.mask_column)[: given.images]
    found = {}
    for threads in given.threads:
        with open_runner(bundle, given.backend, RunnerOptions(threads=threads, device="cpu")) as runner:
            found[str(threads)] = measure(Timed(runner), samples, bundle.spec, given.rounds)
    result = {
        "threads": found,
        "images": len(samples),
        "rounds": given.rounds,
        "backend": given.backend,
        "machine": describe_machine(),
    }
    text = json.dumps(result, indent=2)
    if given.output:
        given.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
