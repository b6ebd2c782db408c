"""One row's own process: opens a runner, then does as it is told, a JSON line in and a JSON line out.

    {"do": "open", "model": DIR, "backend": NAME, "options": {...}, "images": FILE.npy}
    {"do": "call", "batch": N, "calls": K, "seconds": S}    at least K calls and S seconds, timed one by one
    {"do": "memory"}                                        peak resident memory so far
    {"do": "accuracy", "table": FILE, "at": "mask", "labels": DIR, "reference": DIR or null}

A process of its own gives a row its own threads, memory and caches, and a crash that stays its own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segdeploy.bundle import open_model
from segdeploy.data.table import read_table
from segdeploy.errors import SegdeployError
from segdeploy.evaluate import evaluate
from segdeploy.metrics import Scores, confusion_matrix, none_if_nan
from segdeploy.runtime.runner import Runner, RunnerOptions, open_runner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle
    from segdeploy.evaluate import Example


class Worker:
    """What the process holds between two lines."""

    bundle: Bundle
    runner: Runner
    images: NDArray[np.uint8]
    turn = 0

    def open(self, model: str, backend: str, options: dict[str, Any], images: str) -> dict[str, Any]:
        """Load; the time includes the engine's import."""
        started = time.perf_counter()
        self.bundle = open_model(Path(model))
        self.runner = open_runner(self.bundle, backend, RunnerOptions(**options)).__enter__()
        seconds = time.perf_counter() - started
        self.images = np.load(images)
        return {"load_seconds": seconds, "runner": self.runner.describe()}

    def call(self, batch: int, calls: int, seconds: float = 0.0) -> dict[str, Any]:
        """Milliseconds of each call; the inputs rotate over all images."""
        samples: list[float] = []
        ends = time.perf_counter() + seconds
        while len(samples) < calls or time.perf_counter() < ends:
            indices = (np.arange(batch) + self.turn) % len(self.images)
            self.turn += batch
            image = self.images[indices]
            started = time.perf_counter()
            self.runner.run(image)
            samples.append((time.perf_counter() - started) * 1e3)
        return {"milliseconds": samples}

    def memory(self) -> dict[str, Any]:
        """Peak resident memory of this process, MiB."""
        try:  # Linux: unlike getrusage, this figure does not include the parent's peak before exec
            status = Path("/proc/self/status").read_text()
            kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
            return {"peak_memory_mib": int(kib) / 2**10}
        except (OSError, StopIteration):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return {"peak_memory_mib": peak / (2**20 if sys.platform == "darwin" else 2**10)}

    def accuracy(self, table: str, at: str, labels: str, reference: str | None) -> dict[str, Any]:
        """Confusion matrix, agreement with the labels in `reference`, and per-image scores; labels are kept."""
        spec = self.bundle.spec
        samples = read_table(Path(table), spec.image_column, spec.mask_column)
        names: list[str] = []
        scores: list[float | None] = []
        equal = 0
        pixels = 0

        def keep(example: Example, found: NDArray[np.uint8]) -> None:
            nonlocal equal, pixels
            name = f"{len(names):06d}.png"
            names.append(str(example.sample.image))
            Image.fromarray(found).save(Path(labels) / name, compress_level=1)
            scores.append(_image_score(example, found, self.bundle))
            if reference is not None:
                equal += int((found == np.asarray(Image.open(Path(reference) / name))).sum())
                pixels += found.size

        result = evaluate(
            self.runner, samples, spec, at="model" if at == "model" else "mask", boundary=False, on_labels=keep
        )
        return {
            "confusion": result.scores.confusion.tolist(),
            "images": result.images,
            "agreement": equal / pixels if pixels else None,
            "image_iou": scores,
        }


def _image_score(example: Example, labels: NDArray[np.uint8], bundle: Bundle) -> float | None:
    from segdeploy.data.resize import restore_mask

    spec = bundle.spec
    own_size = restore_mask(labels, example.mask.shape, spec.preprocessing)
    return none_if_nan(Scores(confusion_matrix(example.mask, own_size, len(spec.classes))).mean_iou)


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
