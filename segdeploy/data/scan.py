"""The label firewall: every file is looked at before the first epoch, and all that is wrong comes at once."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from segdeploy.classes import IGNORE, ClassMap
from segdeploy.data.facts import PictureFacts, masks_of, read_facts
from segdeploy.data.findings import Finding, findings_text, refusal
from segdeploy.data.rules_labels import check_labels
from segdeploy.data.rules_sample import check_sample
from segdeploy.data.rules_table import check_table
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from segdeploy.data.facts import Facts
    from segdeploy.data.table import Sample

log = logging.getLogger(__name__)

_Name = TypeVar("_Name", bound=str)


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


def check(
    parts: Mapping[_Name, Sequence[Facts]], classes: ClassMap | None, allow: Collection[str] = ()
) -> list[Finding]:
    """Everything that is wrong or looks wrong, errors first; the rules in `allow` are left out.

    Without classes the files and the table are looked at, and not what the labels mean.
    """
    found = [f for facts in parts.values() for one in facts for f in check_sample(one, classes)]
    found += [*(check_labels(parts, classes) if classes else ()), *check_table(parts)]
    unique = dict.fromkeys(f for f in found if f.rule not in allow)  # a file may stand in several rows
    return sorted(unique, key=lambda f: f.severity != "error")


def judge(
    parts: Mapping[_Name, Sequence[Facts]], classes: ClassMap, allow: Collection[str] = ()
) -> dict[_Name, ScanReport]:
    """Report on each part, with one warning in the log that holds all that looks wrong.

    Args:
        parts: facts by the name of their part.
        classes: settled, see `data.discover`.
        allow: rules whose findings are known and accepted.

    Raises:
        DataError: all errors together, by rule; see `rules_sample`, `rules_labels` and `rules_table`.
    """
    found = check(parts, classes, allow)
    if errors := [f for f in found if f.severity == "error"]:
        raise DataError(refusal(errors))
    if found:
        log.warning("the data have %d surprise(s):\n%s", len(found), findings_text(found))
    return {name: report(facts, classes) for name, facts in parts.items()}


def scan(
    samples: Sequence[Sample], classes: ClassMap, progress: Callable[[int, int], None] | None = None
) -> ScanReport:
    """Report on samples that are to be scored, which must have a label somewhere.

    Raises:
        DataError: every file that cannot be used, and every pair whose sizes differ; what only training
            would suffer from is let pass.
    """
    facts = read_facts(samples, progress)
    unique = dict.fromkeys(f for one in facts for f in check_sample(one, classes) if f.severity == "error")
    if unique:
        raise DataError(refusal(list(unique)))
    return report(facts, classes).labelled("masks")


def report(facts: Sequence[Facts], classes: ClassMap) -> ScanReport:
    """Count pixels, classes and sizes of the files that could be read."""
    counts = [m.class_pixels(classes) for _, m in masks_of(facts)]
    table = np.stack(counts) if counts else np.zeros((0, IGNORE + 1), np.int64)
    labelled = table[:, : len(classes)]
    sizes = Counter(f.image.size for f in facts if isinstance(f.image, PictureFacts))
    return ScanReport(classes, labelled.sum(0), int(table[:, IGNORE].sum()), (labelled > 0).sum(0), sizes)


def auto_class_weights(report: ScanReport) -> NDArray[np.float64]:
    """Median frequency balancing (Eigen and Fergus 2015, section 6.3.2): (C,) weights, median / frequency.

    A class's frequency is its pixels over the labelled pixels of the masks that have it; here every mask
    counts as equally large. A class that never occurs gets weight 0.
    """
    return median_frequency_weights(report.pixels, report.present)


def median_frequency_weights(pixels: NDArray[np.int64], present: NDArray[np.int64]) -> NDArray[np.float64]:
    """See `auto_class_weights`; `pixels` and `present` are (C,), as in `ScanReport`."""
    frequency = pixels / np.maximum(present, 1)
    seen = pixels > 0
    weights = np.zeros(len(pixels))
    weights[seen] = np.median(frequency[seen]) / frequency[seen]
    return weights
