"""One set of scores over a table, whatever runs the model."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segdeploy.boundary import boundary_counts
from segdeploy.data.images import open_rgb
from segdeploy.data.masks import read_mask
from segdeploy.data.resize import resize_mask, resize_picture, restore_mask
from segdeploy.errors import DataError
from segdeploy.metrics import Scores, confusion_matrix, none_if_nan
from segdeploy.threads import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.runner import Runner

At = Literal["mask", "model"]

if TYPE_CHECKING:
    _Scored = tuple["Example", NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64] | None]
    OnScored = Callable[["Example", NDArray[np.uint8], NDArray[np.int64]], None]


@dataclass(frozen=True, slots=True)
class Example:
    """One sample ready to run: image at the network's size, mask at its own size, both uint8."""

    sample: Sample
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Scores of one runner on one table.

    `loss` is what training minimises, at the network's size, where the runner's logits were at hand (see
    `segdeploy.train.validate`); None elsewhere, NaN without a labelled pixel.
    """

    scores: Scores
    images: int
    at: At
    seconds: float
    runner: dict[str, Any]
    loss: float | None = None

    def to_dict(self, spec: ModelSpec) -> dict[str, Any]:
        """JSON-ready, in Ludwig's shape: the statistics stand under the mask's name, whatever that is."""
        loss = {} if self.loss is None else {"loss": none_if_nan(self.loss)}
        return {
            "images": self.images,
            "measured_at": self.at,
            "seconds": round(self.seconds, 3),
            "runner": self.runner,
            spec.mask_name: loss | self.scores.to_dict(spec.classes),
        }


def read_examples(samples: Sequence[Sample], spec: ModelSpec) -> Generator[Example, None, None]:
    """Decode and resize ahead of the caller, in order.

    Raises:
        DataError: the first file that is missing or broken, or a mask of another size than its image.
    """

    def read(sample: Sample) -> Example:
        if sample.mask is None:
            raise DataError(f"{sample.image}: has no mask to be compared with")
        picture = open_rgb(sample.image)
        mask = read_mask(sample.mask, spec.classes)
        if mask.shape != (picture.height, picture.width):
            raise DataError(
                f"{sample.mask}: expected the size of {sample.image.name}, {picture.width}x{picture.height}, "
                f"found {mask.shape[1]}x{mask.shape[0]}"
            )
        return Example(sample, resize_picture(picture, spec.preprocessing), mask)

    return in_order(read, samples)


def predict_batches(
    runner: Runner, examples: Iterator[Example], batch_size: int
) -> Iterator[tuple[Example, NDArray[np.uint8]]]:
    """Each example with its labels (height, width) at the network's size; the last batch may be smaller."""

    def run() -> NDArray[np.uint8]:
        # A copy: labels are looked at while the engine runs on, and it may write its next ones to the same buffer.
        return runner.run(np.stack([e.image for e in batch])).copy()

    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if len(batch) == batch_size:
            yield from zip(batch, run(), strict=True)
            batch = []
    if batch:
        yield from zip(batch, run(), strict=True)


def evaluate(
    runner: Runner,
    samples: Sequence[Sample],
    spec: ModelSpec,
    *,
    batch_size: int = 1,
    at: At = "mask",
    boundary: bool = True,
    progress: Callable[[int, int], None] | None = None,
    on_labels: Callable[[Example, NDArray[np.uint8]], None] | None = None,
    on_scored: OnScored | None = None,
) -> EvalResult:
    """Run all samples and count.

    Args:
        runner: any backend.
        samples: with masks.
        spec: how images are resized and what masks mean.
        batch_size: images per call of the runner.
        at: "mask" brings the labels back to each mask's own size (nearest); "model" brings the mask to
            the network's size.
        boundary: whether to count the pixels near contours too, for the boundary IoU.
        progress: called with (done, total).
        on_labels: called with each example and its labels (height, width) at the network's size.
        on_scored: called with each example, its labels, and its own confusion matrix (C, C), in order.

    Raises:
        DataError: see `read_examples`.
    """
    count = len(spec.classes)

    def labelled() -> Iterator[tuple[Example, NDArray[np.uint8]]]:
        with closing(read_examples(samples, spec)) as examples:
            for example, labels in predict_batches(runner, examples, batch_size):
                if on_labels is not None:
                    on_labels(example, labels)
                yield example, labels

    def score(pair: tuple[Example, NDArray[np.uint8]]) -> _Scored:
        example, labels = pair
        if at == "mask":
            target, predicted = example.mask, restore_mask(labels, example.mask.shape, spec.preprocessing)
        else:
            target, predicted = resize_mask(example.mask, spec.preprocessing), labels
        pairs = confusion_matrix(target, predicted, count)
        return example, labels, pairs, boundary_counts(target, predicted, count) if boundary else None

    confusion = np.zeros((count, count), np.int64)
    near = np.zeros((2, count), np.int64)
    started = time.perf_counter()
    done = 0
    with closing(in_order(score, labelled())) as scored:
        for example, labels, pairs, contours in scored:
            confusion += pairs
            if contours is not None:
                near += contours
            if on_scored is not None:
                on_scored(example, labels, pairs)
            done += 1
            if progress is not None:
                progress(done, len(samples))
    return EvalResult(
        Scores(confusion, near if boundary else None), done, at, time.perf_counter() - started, runner.describe()
    )
