"""The label firewall: every file is opened and checked before the first epoch, and all faults come at once."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.images import read_image
from segdeploy.data.masks import auto_encoding, decode_mask, mask_values, open_mask
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample

    # Pixels by value 0..255, (height, width), and what is wrong; None for what could not be read.
    _Checked = tuple[NDArray[np.int64] | None, tuple[int, int] | None, list[str]]

_Name = TypeVar("_Name", bound=str)
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

    def labelled(self, what: str) -> ScanReport:
        """This report; DataError, with `what` as the masks' name, where no pixel has a label."""
        if not self.pixels.any():
            raise DataError(f"the {what} hold no labelled pixel; check `ignore_index` and the classes")
        return self


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
    samples: Sequence[Sample], classes: ClassMap, progress: Callable[[int, int], None] | None = None
) -> ScanReport:
    """`scan_parts` for one part, which must have a label somewhere."""
    return scan_parts({"all": samples}, classes, progress)["all"].labelled("masks")


def scan_parts(
    parts: Mapping[_Name, Sequence[Sample]], classes: ClassMap, progress: Callable[[int, int], None] | None = None
) -> dict[_Name, ScanReport]:
    """Decode every image and mask once, and report on each part.

    Args:
        parts: the samples by the name of their part.
        classes: with a settled encoding.
        progress: called with (done, total).

    Raises:
        DataError: one line for each file that is missing or broken, mask value that no class owns, and
            pair whose sizes differ, of all parts together.
    """
    everything = [(name, sample) for name, samples in parts.items() for sample in samples]
    found: dict[_Name, list[_Checked]] = {name: [] for name in parts}
    workers = min(8, (os.cpu_count() or 1) * 2)
    with ThreadPoolExecutor(workers) as pool:  # Pillow's decoders release the interpreter lock
        results = pool.map(lambda item: _check(item[1], classes), everything)
        for done, ((name, _), result) in enumerate(zip(everything, results, strict=True), start=1):
            found[name].append(result)
            if progress is not None:
                progress(done, len(everything))
    faulty = [said for results in found.values() for _, _, said in results if said]
    if faulty:
        lines = [line for said in faulty for line in said]
        raise DataError(f"{len(faulty)} of {len(everything)} samples cannot be used:\n" + "\n".join(lines))
    return {name: _report(results, classes) for name, results in found.items()}


def _report(results: list[_Checked], classes: ClassMap) -> ScanReport:
    counts = [c for c, _, _ in results if c is not None]
    table = np.stack(counts) if counts else np.zeros((0, 256), np.int64)
    labelled = table[:, : len(classes)]
    sizes = Counter(size for _, size, _ in results if size is not None)
    return ScanReport(classes, labelled.sum(0), int(table[:, IGNORE].sum()), (labelled > 0).sum(0), sizes)


def _check(sample: Sample, classes: ClassMap) -> _Checked:
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
