"""The label firewall: every file is opened and checked before the first epoch, and all faults come at once."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.images import read_image
from segdeploy.data.masks import auto_encoding, decode_mask, mask_values, open_mask
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample

_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What the samples hold.

    `pixels` is (C,) int64, labelled pixels per class; `ignored` counts those without a label; `present`
    is (C,) int64, masks per class that have it; `sizes` counts (height, width).
    """

    classes: ClassMap
    pixels: NDArray[np.int64]
    ignored: int
    present: NDArray[np.int64]
    sizes: Counter[tuple[int, int]]


def resolve_encoding(samples: Sequence[Sample], classes: ClassMap) -> ClassMap:
    """Settle `encoding: auto` by looking at up to 127 masks; other encodings are returned as they are.

    Colours anywhere mean "color"; two classes whose masks hold 0 and 255 but never 1 mean "binary". Where
    two classes have shown nothing but 0, the search goes on through all masks.

    Raises:
        DataError: the masks are RGB pictures, and two classes have the same colour.
    """
    if classes.encoding != "auto":
        return classes
    found: Literal["class_id", "binary", "color"] = "class_id"
    values: set[int] = set()
    first = samples[:: max(1, len(samples) // _LOOKED_AT)]
    for number, sample in enumerate(itertools.chain(first, samples)):
        if number >= len(first) and (len(classes) != 2 or values != {0}):
            break
        if sample.mask is None:
            continue
        try:
            picture = open_mask(sample.mask)
            if auto_encoding(picture) == "color":
                found = "color"
                break
            if picture.mode != "1":  # 1-bit masks read the same under both
                values |= {int(v) for v in mask_values(picture, sample.mask)}
        except DataError:
            continue  # the scan names it
    if found == "class_id" and len(classes) == 2 and 255 in values and values <= {0, 255}:
        found = "binary"
    if found == "color" and len(set(classes.colors)) != len(classes):
        raise DataError("the masks are RGB pictures, so every class needs a `color` of its own")
    return ClassMap.model_validate({**classes.model_dump(), "encoding": found})


def scan(
    samples: Sequence[Sample],
    classes: ClassMap,
    progress: Callable[[int, int], None] | None = None,
    what: str = "masks",
) -> ScanReport:
    """Decode every image and mask once.

    Args:
        samples: all of training, validation and test.
        classes: with a settled encoding.
        progress: called with (done, total).
        what: what the samples' masks are called in messages.

    Raises:
        DataError: no labelled pixel in all of them, or one line for each file that is missing or broken,
            mask value that no class owns, and pair whose sizes differ.
    """
    workers = min(8, (os.cpu_count() or 1) * 2)
    pixels = np.zeros(len(classes), np.int64)
    present = np.zeros(len(classes), np.int64)
    ignored = 0
    sizes: Counter[tuple[int, int]] = Counter()
    faults: list[str] = []
    broken = 0
    with ThreadPoolExecutor(workers) as pool:  # Pillow's decoders release the interpreter lock
        for done, result in enumerate(pool.map(lambda s: _check(s, classes), samples), start=1):
            counts, size, said = result
            faults += said
            broken += bool(said)
            if counts is not None:
                pixels += counts[: len(classes)]
                present += counts[: len(classes)] > 0
                ignored += int(counts[IGNORE])
            if size is not None:
                sizes[size] += 1
            if progress is not None:
                progress(done, len(samples))
    if faults:
        raise DataError(f"{broken} of {len(samples)} samples cannot be used:\n" + "\n".join(faults))
    if not pixels.any():
        raise DataError(f"the {what} hold no labelled pixel; check `ignore_index` and the classes")
    return ScanReport(classes, pixels, ignored, present, sizes)


def _check(sample: Sample, classes: ClassMap) -> tuple[NDArray[np.int64] | None, tuple[int, int] | None, list[str]]:
    said: list[str] = []
    size = counts = labels = None
    try:
        size = read_image(sample.image).shape[:2]
    except DataError as e:
        said.append(str(e))
    if sample.mask is not None:
        try:
            labels = decode_mask(open_mask(sample.mask), classes, sample.mask)
            counts = np.bincount(labels.ravel(), minlength=256)
        except DataError as e:
            said.append(str(e))
    if size is not None and labels is not None and labels.shape != size:
        said.append(
            f"{sample.mask}: expected the size of {sample.image.name}, {size[1]}x{size[0]}, "
            f"found {labels.shape[1]}x{labels.shape[0]}"
        )
    return counts, size, said


def auto_class_weights(report: ScanReport) -> NDArray[np.float64]:
    """Median frequency balancing (Eigen and Fergus 2015, section 6.3.2): (C,) weights, median / frequency.

    A class's frequency is its pixels over the labelled pixels of the masks that have it; here every mask
    counts as equally large. A class that never occurs gets weight 0.
    """
    frequency = report.pixels / np.maximum(report.present, 1)
    seen = report.pixels > 0
    weights = np.zeros(len(report.classes))
    weights[seen] = np.median(frequency[seen]) / frequency[seen]
    return weights
