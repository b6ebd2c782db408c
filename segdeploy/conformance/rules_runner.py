"""Rules about a backend's runner: labels, results, and what a run costs."""

from __future__ import annotations

import itertools
import statistics
import time
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.conformance.rule import BrokenError, Found, Rule
from segdeploy.conformance.rules_export import AGREEMENT

if TYPE_CHECKING:
    from segdeploy.conformance.backend_subject import BackendSubject

_PASSES = 5


def check_labels(subject: BackendSubject) -> Found:
    """Shapes, type and labels, one image and three."""
    worst = 1.0
    with subject.opened() as runner:
        for count in (1, 3):
            image = subject.images(count)
            found, expected = subject.run(runner, image), subject.expected(image)
            if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != expected.shape:
                said = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
                raise BrokenError(f"batch {count}: expected uint8 {expected.shape}, found {said}")
            same = float((found == expected).mean())
            if same < AGREEMENT:
                raise BrokenError(f"batch {count}: {same:.2%} of the labels agree with torch's", agreement=same)
            worst = min(worst, same)
    return Found(f"{worst:.3%} of the labels agree", {"agreement": worst})


def check_deterministic(subject: BackendSubject) -> Found:
    """Twice the same image."""
    image = subject.images(2)
    with subject.opened() as runner:
        first, second = (subject.run(runner, image).copy() for _ in range(2))
    if (first != second).any():
        raise BrokenError(f"two runs over one image differ in {(first != second).mean():.2%} of the labels")
    return Found()


def check_result_kept(subject: BackendSubject) -> Found:
    """Results and inputs stay as they are; memory order is the backend's own business."""
    image, other = subject.images(2, seed=0), subject.images(2, seed=1)
    before = image.copy()
    with subject.opened() as runner:
        first = subject.run(runner, image)
        kept = first.copy()
        subject.run(runner, other)
        if (first != kept).any():
            raise BrokenError("the second run overwrites what the first has returned")
        if (image != before).any():
            raise BrokenError("run overwrites the image that it is given")
        flipped = np.ascontiguousarray(image[..., ::-1])
        apart = np.stack([image, image], axis=-1)[..., 0]
        for what, view in (("with negative strides (bgr[..., ::-1])", flipped[..., ::-1]), ("with gaps", apart)):
            if (subject.run(runner, view) != kept).any():
                raise BrokenError(f"an array {what} gives other labels than its contiguous copy")
    return Found()


def check_reopen(subject: BackendSubject) -> Found:
    """Open, run, close, and all again."""
    image = subject.images(1)
    results = []
    for _ in range(2):
        with subject.opened() as runner:
            results.append(subject.run(runner, image).copy())
    if (results[0] != results[1]).any():
        raise BrokenError("opened a second time it gives other labels")
    return Found()


def check_cost(subject: BackendSubject) -> Found:
    """Milliseconds, and results that stay alive from run to run."""
    image = subject.images(1)
    times, alive = [], []
    started = time.perf_counter()
    with subject.opened() as runner:
        opening = time.perf_counter() - started
        for _ in range(_PASSES):
            started = time.perf_counter()
            subject.run(runner, image)
            times.append((time.perf_counter() - started) * 1e3)
        tracemalloc.start()
        try:
            for _ in range(_PASSES):
                subject.run(runner, image)
                alive.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    each = min(after - before for before, after in itertools.pairwise(alive[1:]))
    if each * 2 > image[..., 0].nbytes:
        raise BrokenError(f"each run leaves {each:,} bytes alive", bytes_per_run=each)
    numbers = {"size": list(subject.size), "milliseconds": round(statistics.median(times), 3), "threads": 1}
    return Found(
        f"{numbers['milliseconds']} ms, {opening:.2f} s to open", numbers | {"open_seconds": round(opening, 3)}
    )


RULES = (
    Rule(
        name="labels",
        kinds=("backend",),
        sentence="The labels are torch's, uint8 (N, H, W), for one image and for three.",
        fix="Fix the precision to the bundle's (no bf16, no TF32, no fast math) and check the memory layout.",
        check=check_labels,
        needs=("open",),
    ),
    Rule(
        name="deterministic",
        kinds=("backend",),
        sentence="The same image gives the same labels.",
        fix="Synchronise before results are read; choose the engine's deterministic kernels.",
        check=check_deterministic,
        needs=("open",),
    ),
    Rule(
        name="result-kept",
        kinds=("backend",),
        sentence="A result outlives the next run, the image stays as it is, and any strides will do.",
        fix="Copy the engine's output buffer before it is used again; np.ascontiguousarray the image.",
        check=check_result_kept,
        needs=("deterministic",),
    ),
    Rule(
        name="reopen",
        kinds=("backend",),
        sentence="Closed and opened again it gives the same labels.",
        fix="Give back in close all that open took, and keep nothing at module level.",
        check=check_reopen,
        needs=("deterministic",),
    ),
    Rule(
        name="cost",
        kinds=("backend",),
        sentence="Time is measured; no result stays alive from run to run.",
        fix="Keep no results on the runner.",
        check=check_cost,
        needs=("result-kept",),
    ),
)
