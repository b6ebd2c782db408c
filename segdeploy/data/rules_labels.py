"""Rules about the labels of a data set as a whole: classes that are missing, ignored, or shifted by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.classes import IGNORE
from segdeploy.data.facts import masks_of
from segdeploy.data.findings import Finding
from segdeploy.data.masks import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.classes import ClassMap
    from segdeploy.data.facts import Facts, MaskFacts

_MOSTLY = 0.5
_ENOUGH = 3  # masks, before it means something that each holds one class only
_TRAINED = ("training", "validation")
_CHECK = "check `ignore_index` and the classes"


def check_labels(parts: Mapping[Any, Sequence[Facts]], classes: ClassMap) -> Iterator[Finding]:
    """All findings about the labels of all parts; a part called "training" is held to more than the others.

    no-labels: nothing to learn from. binary-mask, off-by-one, one-class: something wrong would be learned.
    swallowed, absent-class, mostly-ignored, empty-mask, flat-masks: worth a look.
    """
    tables = {name: _Table.of(facts, classes) for name, facts in parts.items()}
    whole = _Table([f for t in tables.values() for f in t.files], np.concatenate([t.pixels for t in tables.values()]))
    if not whole.files:
        return
    shifted = list(_shifted([(path, m) for facts in parts.values() for path, m in _masks(facts)], classes))
    yield from shifted
    for name, table in tables.items():
        if table.files and not table.pixels[:, :IGNORE].any() and name in _TRAINED:
            said = f"like all {name} masks, it holds no labelled pixel; {_CHECK}"
            yield Finding("error", "no-labels", table.files[0], said)
    if not shifted:
        yield from _one_class(tables.get("training", whole), classes)
        yield from _absent(tables, whole, classes)
    yield from _ignored(whole)
    for path, pixels in zip(whole.files, whole.pixels, strict=True):
        if pixels[IGNORE] and not pixels[:IGNORE].any():
            yield Finding("warning", "empty-mask", path, "holds no labelled pixel and teaches nothing")


@dataclass(frozen=True, slots=True)
class _Table:
    """The masks of a part, and (masks, 256) pixels of each label in each."""

    files: list[Path]
    pixels: NDArray[np.int64]

    @classmethod
    def of(cls, facts: Sequence[Facts], classes: ClassMap) -> _Table:
        masks = list(_masks(facts))
        rows = [m.class_pixels(classes) for _, m in masks]
        return cls([path for path, _ in masks], np.stack(rows) if rows else np.zeros((0, IGNORE + 1), np.int64))

    def first_with(self, label: int) -> Path:
        """The first mask that has the label."""
        return self.files[int(np.argmax(self.pixels[:, label] > 0))]


def _masks(facts: Sequence[Facts]) -> Iterator[tuple[Path, MaskFacts]]:
    return ((s.mask, m) for s, m in masks_of(facts) if s.mask is not None)


def _shifted(masks: list[tuple[Path, MaskFacts]], classes: ClassMap) -> Iterator[Finding]:
    if classes.encoding != "class_id" or classes.values is not None:
        return
    owners: dict[int, Path] = {}
    for path, mask in masks:
        for value in () if mask.kind == "colors" else mask.codes:
            owners.setdefault(value, path)
    found = set(owners)
    ignored, count = set(classes.ignore_values), len(classes)
    first = classes.names[0]
    if count == 2 and 255 in found & ignored and found <= {0, 255}:
        yield Finding(
            "error", "binary-mask", owners[255], "the masks hold 0 and 255, so all of class "
            f"{classes.names[1]!r} would be ignored; set `encoding: binary`",
        )  # fmt: skip
    held = found - (ignored - {count})
    if max(held, default=0) != count or len(held) <= count / 2:
        return
    if 0 not in found:
        yield Finding(
            "error", "off-by-one", owners[count], f"the masks hold values from {min(held)} to {count} and never 0: "
            f"ids begin at 1, and every class is shifted; give each class its `value`: 1 for {first!r}, and so on",
        )  # fmt: skip
    elif count not in ignored:
        yield Finding(
            "error", "off-by-one", owners[count], f"the masks hold values from 0 to {count}, one more than the {count} "
            "classes. If 0 means 'other' (ADE20K's reduce_zero_label), set `ignore_index: 0` and give each class its "
            f"`value`: 1 for {first!r}, and so on; else list the missing class",
        )  # fmt: skip


def _one_class(table: _Table, classes: ClassMap) -> Iterator[Finding]:
    has = table.pixels[:, : len(classes)] > 0
    seen = np.flatnonzero(has.any(axis=0))
    if len(seen) == 1:
        yield Finding(
            "error", "one-class", table.first_with(seen[0]), f"here, as in every mask to train on, each labelled pixel "
            f"is {classes.names[seen[0]]!r}, and nothing can be learned from one class; {_CHECK}",
        )  # fmt: skip
    elif len(has) >= _ENOUGH and (has.sum(1) <= 1).all():
        yield Finding(
            "warning", "flat-masks", table.files[0], f"like each of the {len(has)} masks, it holds one class only, "
            "while masks usually hold the classes of a picture side by side",
        )  # fmt: skip


def _absent(tables: Mapping[Any, _Table], whole: _Table, classes: ClassMap) -> Iterator[Finding]:
    ever = whole.pixels.sum(axis=0) > 0
    absent = [name for name, seen in zip(classes.names, ever, strict=False) if not seen]
    if absent:
        what = f"no mask holds the class(es) {few(absent, 12)}"
        begins = "; do ids begin at 1? Then give each class its `value`" * (not ever[0] and classes.values is None)
        if ever[IGNORE]:
            values = classes.ignore_colors if classes.encoding == "color" else classes.ignore_values
            said = f"{what}, while the ignored {few(values)} occurs, here first: is it one of them?{begins[1:]}"
            yield Finding("warning", "swallowed", whole.first_with(IGNORE), said)
        else:
            yield Finding("warning", "absent-class", None, f"{what}{begins or '; ' + _CHECK}")
    for name, table in tables.items():
        lost = np.flatnonzero((ever & (table.pixels.sum(axis=0) == 0))[: len(classes)])
        if table.files and len(lost):
            effect = "they will never be predicted" if name == "training" else "they have no score there"
            names = few([classes.names[i] for i in lost], 12)
            yield Finding(
                "warning", "absent-class", whole.first_with(lost[0]), f"no {name} mask holds the class(es) {names}: "
                f"{effect}. This mask of another part does; split the samples in another way",
            )  # fmt: skip


def _ignored(table: _Table) -> Iterator[Finding]:
    ignored = table.pixels[:, IGNORE]
    share = ignored.sum() / max(1, table.pixels.sum())
    if _MOSTLY < share < 1:
        said = f"{share:.0%} of all pixels, here most, have no label and count for nothing; {_CHECK}"
        yield Finding("warning", "mostly-ignored", table.files[int(ignored.argmax())], said)
