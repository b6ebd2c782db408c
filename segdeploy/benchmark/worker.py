"""One row's own process: opens a runner, then does as it is told, a JSON line in and a JSON line out.

A process of its own gives a row its own threads, memory and caches, and a crash that stays its own. `Worker`'s methods
are what it can be told: {"do": "turn", "what": "memory", "calls": 2, "seconds": 0.1}.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.benchmark.contention import disturbance, rest, usage
from segdeploy.benchmark.labels import CheckedRunner, at_size, score
from segdeploy.benchmark.timing import warm_up
from segdeploy.bundle import open_model
from segdeploy.errors import SegdeployError
from segdeploy.predict import predict
from segdeploy.runtime.runner import Runner, RunnerOptions, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle


class Worker:
    """What the process holds between two lines."""

    bundle: Bundle
    runner: Runner
    batches: Iterator[NDArray[np.uint8]]
    files: Iterator[str]
    threads: int

    def open(
        self, model: str, backend: str, options: dict[str, Any], size: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Load; the time includes the engine's import. `size`: (height, width) of the images, None: the model's."""
        started = time.perf_counter()
        self.bundle = open_model(Path(model))
        if size is not None:
            self.bundle = at_size(self.bundle, *size)
        chosen = RunnerOptions(**options)
        self.threads = chosen.thread_count
        self.runner = open_runner(self.bundle, backend, chosen).__enter__()
        return {"load_seconds": time.perf_counter() - started, "runner": self.runner.describe()}

    def first(
        self, images: str, batch: int, files: list[str], keep: str | None = None, reference: str | None = None
    ) -> dict[str, Any]:
        """The first call, whose labels are looked at; those of all batches where they are kept or compared.

        Args:
            images: a .npy file of images at the network's size, as many as a multiple of `batch`; calls rotate.
            batch: images per call.
            files: image files, for calls from file to file.
            keep: a folder for the labels of each batch.
            reference: such a folder of torch's row.

        Returns:
            `seconds`, and `agreement`: the share of pixels with the same class as in `reference`, None without one.
        """
        pool = np.load(images)
        # Slices, so that no copy warms the caches before a call.
        batches = [pool[i : i + batch] for i in range(0, len(pool), batch)]
        self.batches, self.files = cycle(batches), cycle(files)
        checked = CheckedRunner(self.runner, len(self.bundle.spec.classes))
        started = time.perf_counter()
        labels = checked.run(batches[0])
        seconds = time.perf_counter() - started
        agreement = []
        for number, image in enumerate(batches if keep or reference else ()):
            labels = checked.run(image) if number else labels
            if keep:
                np.save(Path(keep) / f"{number}.npy", labels)
            if reference:
                agreement.append(float((labels == np.load(Path(reference) / f"{number}.npy")).mean()))
        return {"seconds": seconds, "agreement": float(np.mean(agreement)) if agreement else None}

    def warm(self, calls: int, patience: float) -> dict[str, Any]:
        """Untimed calls until the time is steady, see `segdeploy.benchmark.timing.warm_up`."""
        made, steady = warm_up(lambda: self._call()[0], calls, patience)
        gc.collect()
        gc.freeze()  # what is there now lives to the end; no later collection looks at it
        rest()
        return {"calls": made, "steady": steady}

    def turn(self, what: str, calls: int, seconds: float, folder: str = "") -> dict[str, Any]:
        """A row's turn in a round, at least `calls` calls and `seconds` long: milliseconds of each.

        Args:
            what: "memory": image batch to label batch; "file": an image file to its mask file in `folder`.
            calls: at least so many.
            seconds: at least so long.
            folder: for the mask files.

        Returns:
            `milliseconds` and `engine` (None where the runner does not tell) of each call; `disturbed`: what others
            took meanwhile, or None.
        """
        call: Callable[[], tuple[float, float | None]] = self._call
        if what == "file":
            call = lambda: self._file(Path(folder))  # noqa: E731
        call()  # not counted: the row before has left its own data in the caches
        samples: list[tuple[float, float | None]] = []
        before = usage()
        while len(samples) < calls or time.perf_counter() < before.wall + seconds:
            samples.append(call())
        why = disturbance(before, usage(), self.threads)
        rest()
        engine = [own for _, own in samples if own is not None]
        return {
            "milliseconds": [whole for whole, _ in samples],
            "engine": engine if len(engine) == len(samples) else None,
            "disturbed": why,
        }

    def _call(self) -> tuple[float, float | None]:
        image = next(self.batches)
        started = time.perf_counter()
        self.runner.run(image)
        whole = (time.perf_counter() - started) * 1e3
        engine = self.runner.engine_seconds
        return whole, None if engine is None else engine * 1e3

    def _file(self, folder: Path) -> tuple[float, None]:
        source = Path(next(self.files))
        started = time.perf_counter()
        done = predict(self.runner, self.bundle.spec, [source], folder)
        whole = (time.perf_counter() - started) * 1e3
        if done.faults:
            raise SegdeployError(done.faults[0])
        return whole, None

    def mask(self, image: str, folder: str) -> dict[str, Any]:
        """One mask file, for a process whose whole life up to here is measured."""
        self.files = iter([image])
        self._file(Path(folder))
        return {}

    def state(self) -> dict[str, Any]:
        """Peak resident memory of this process so far, MiB, and what the runner says of itself now."""
        return {"peak_memory_mib": _peak_memory(), "runner": self.runner.describe()}

    def score(self, table: str, at: str, labels: str, reference: str | None) -> dict[str, Any]:
        """Scores on a whole table, see `segdeploy.benchmark.labels.score`."""
        told = Path(reference) if reference else None
        return score(self.runner, self.bundle, Path(table), "model" if at == "model" else "mask", Path(labels), told)


def _peak_memory() -> float:
    try:  # Linux: unlike getrusage, this figure does not include the parent's peak before exec
        status = Path("/proc/self/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 2**10
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Answer lines until the input ends."""
    # Libraries print; only answers may reach the pipe.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except SegdeployError as e:
            answer = {"error": str(e)}
        except Exception as e:  # the row fails with its reason, the benchmark goes on
            traceback.print_exc()
            answer = {"error": f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
