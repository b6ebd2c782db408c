"""Rules about the labels of a data set as a whole: classes that are missing, ignored, or shifted by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.classes import IGNORE
from segdeploy.data.facts import MaskFacts, masks_of
from segdeploy.data.findings import Finding
from segdeploy.data.masks import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from segdeploy.classes import ClassMap
    from segdeploy.data.facts import Facts

_MOSTLY = 0.5
_ENOUGH = 3  # masks, before it means something that each holds one class only
_TRAINED = ("training", "validation")


def check_labels(parts: Mapping[Any, Sequence[Facts]], classes: ClassMap) -> Iterator[Finding]:
    """All findings about the labels of all parts; a part called "training" is held to more than the others.

    no-labels: nothing to learn from. binary-mask, off-by-one, one-class: something wrong would be learned.
    swallowed, absent-class, mostly-ignored, empty-mask, flat-masks: worth a look.
    """
    masks = [m for facts in parts.values() for _, m in masks_of(facts)]
    if not masks:
        return
    shifted = list(_shifted(masks, classes))
    yield from shifted
    pixels = {name: _pixels(facts, classes) for name, facts in parts.items()}
    for name, table in pixels.items():
        if len(table) and not table[:, :IGNORE].any() and name in _TRAINED:
            yield Finding("error", "no-labels", None, f"the {name} masks hold no labelled pixel; {_CHECK}")
    if not shifted:
        yield from _one_class(pixels, classes)
        yield from _absent(pixels, classes)
    yield from _ignored(np.concatenate(list(pixels.values())), classes)
    for facts in parts.values():
        for sample, mask in masks_of(facts):
            labels = mask.labels(classes)
            if sample.mask is not None and (labels == IGNORE).all():
                yield Finding("warning", "empty-mask", sample.mask, "holds no labelled pixel and teaches nothing")


_CHECK = "check `ignore_index` and the classes"


def _pixels(facts: Sequence[Facts], classes: ClassMap) -> NDArray[np.int64]:
    """(masks, 256) pixels of each label in each mask."""
    rows = [m.class_pixels(classes) for _, m in masks_of(facts)]
    return np.stack(rows) if rows else np.zeros((0, IGNORE + 1), np.int64)


def _shifted(masks: list[MaskFacts], classes: ClassMap) -> Iterator[Finding]:
    if classes.encoding != "class_id" or classes.values is not None:
        return
    found = {v for m in masks if m.kind != "colors" for v in m.codes}
    ignored, count = set(classes.ignore_values), len(classes)
    first = classes.names[0]
    if count == 2 and 255 in found & ignored and found <= {0, 255}:
        yield Finding(
            "error", "binary-mask", None, f"the masks hold 0 and 255, so all of class {classes.names[1]!r} would be "
            "ignored; set `encoding: binary`",
        )  # fmt: skip
    held = found - (ignored - {count})
    if max(held, default=0) != count or len(held) <= count / 2:
        return
    if 0 not in found:
        yield Finding(
            "error", "off-by-one", None, f"the masks hold values from {min(held)} to {count} and never 0, so ids begin "
            f"at 1 and every class is shifted by one; give each class its `value`: 1 for {first!r}, and so on",
        )  # fmt: skip
    elif count not in ignored:
        yield Finding(
            "error", "off-by-one", None, f"the masks hold values from 0 to {count}, one more than the {count} classes. "
            f"If 0 means 'other' (ADE20K's reduce_zero_label), set `ignore_index: 0` and give each class its `value`: "
            f"1 for {first!r}, and so on; else list the missing class",
        )  # fmt: skip


def _one_class(pixels: Mapping[Any, NDArray[np.int64]], classes: ClassMap) -> Iterator[Finding]:
    training = pixels.get("training", np.concatenate(list(pixels.values())))[:, : len(classes)] > 0
    seen = np.flatnonzero(training.any(axis=0))
    if len(seen) == 1:
        yield Finding(
            "error", "one-class", None, f"every labelled pixel to train on is {classes.names[seen[0]]!r}, and "
            f"nothing can be learned from one class; {_CHECK}",
        )  # fmt: skip
    elif len(training) >= _ENOUGH and (training.sum(1) <= 1).all():
        yield Finding(
            "warning", "flat-masks", None, f"each of the {len(training)} masks holds one class only, while masks "
            "usually hold the classes of a picture side by side",
        )  # fmt: skip


def _absent(pixels: Mapping[Any, NDArray[np.int64]], classes: ClassMap) -> Iterator[Finding]:
    never = np.asarray(~np.concatenate(list(pixels.values())).any(axis=0))
    ignored = any(table[:, IGNORE].any() for table in pixels.values())
    absent = [n for n, gone in zip(classes.names, never[: len(classes)], strict=True) if gone]
    if absent:
        what = f"no mask holds the class(es) {few(absent, 12)}"
        begins = "; do ids begin at 1? Then give each class its `value`" * (bool(never[0]) and classes.values is None)
        if ignored:
            values = classes.ignore_colors if classes.encoding == "color" else classes.ignore_values
            said = f"{what}, while pixels of the ignored {few(values)} occur: is it one of them?{begins[1:]}"
            yield Finding("warning", "swallowed", None, said)
        else:
            yield Finding("warning", "absent-class", None, f"{what}{begins or '; ' + _CHECK}")
    for name, table in pixels.items():
        gone = np.asarray(~table.any(axis=0)) & ~never
        lost = [n for n, g in zip(classes.names, gone[: len(classes)], strict=True) if g]
        if len(table) and lost:
            effect = "they will never be predicted" if name == "training" else "they have no score there"
            yield Finding(
                "warning", "absent-class", None, f"no {name} mask holds the class(es) {few(lost, 12)}: {effect}; "
                "split the samples in another way",
            )  # fmt: skip


def _ignored(table: NDArray[np.int64], classes: ClassMap) -> Iterator[Finding]:
    share = table[:, IGNORE].sum() / max(1, table.sum())
    if _MOSTLY < share < 1:
        said = f"{share:.0%} of all pixels have no label and count for nothing; {_CHECK}"
        yield Finding("warning", "mostly-ignored", None, said)
