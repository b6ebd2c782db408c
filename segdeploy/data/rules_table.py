"""Rules about the table: the same picture twice, in two parts, or with another picture's mask."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from segdeploy.data.facts import MaskFacts, PictureFacts
from segdeploy.data.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from segdeploy.data.facts import Facts

_MOST = 0.8
# What data sets add to the name of an image or a mask; Cityscapes' own words hold digits.
_SENSORS = re.compile("leftImg8bit|gtFine|gtCoarse")
_AFFIXES = frozenset({
    "anno", "annotation", "annotations", "color", "colour", "ground", "gt", "id", "ids", "im", "image", "images", "img",
    "instance", "jpg", "l", "label", "labels", "mask", "masks", "photo", "pic", "picture", "png", "rgb", "sat", "seg",
    "segm", "segmentation", "target", "train", "truth",
})  # fmt: skip


def check_table(parts: Mapping[Any, Sequence[Facts]]) -> Iterator[Finding]:
    """All findings about which files stand together.

    leak: the same picture (by its pixels) in two parts; an error where one is called "training".
    conflict: twice in one part, with different masks. duplicate-row, repeated, shared-mask, stems: worth a look.
    """
    yield from _leaks(parts)
    for facts in parts.values():
        yield from _repeated(facts)
        yield from _shared(facts)
    yield from _stems([f for facts in parts.values() for f in facts])


def _telling(facts: Sequence[Facts]) -> Iterator[tuple[str, Facts]]:
    """Digest and sample of each image that could be read; pictures of one colour are alike for no reason."""
    return ((f.image.digest, f) for f in facts if isinstance(f.image, PictureFacts) and f.image.colors > 1)


def _differ(one: Facts, other: Facts) -> bool:
    """Whether both masks were read and say different things."""
    a, b = one.mask, other.mask
    return isinstance(a, MaskFacts) and isinstance(b, MaskFacts) and a.digest != b.digest


def _leaks(parts: Mapping[Any, Sequence[Facts]]) -> Iterator[Finding]:
    seen: dict[str, tuple[str, Facts]] = {}
    for name, facts in parts.items():
        for digest, f in _telling(facts):
            before, other = seen.setdefault(digest, (name, f))
            if before != name:
                masks = ", with another mask" if _differ(other, f) else ""
                yield Finding(
                    "error" if "training" in (before, name) else "warning", "leak", f.sample.image,
                    f"stands in {name} and in {before} (as {other.sample.image.name}{masks}), so scores would look "
                    "better than they are; take it out of one of them",
                )  # fmt: skip


def _repeated(facts: Sequence[Facts]) -> Iterator[Finding]:
    rows: set[tuple[Path, Path | None]] = set()
    seen: dict[str, Facts] = {}
    for f in facts:
        row = (f.sample.image, f.sample.mask)
        if row in rows:
            yield Finding("warning", "duplicate-row", f.sample.image, "stands in the table twice; delete a row")
        rows.add(row)
    for digest, f in _telling(facts):
        other = seen.setdefault(digest, f)
        if other is f or (other.sample.image, other.sample.mask) == (f.sample.image, f.sample.mask):
            continue
        same = f"is the same picture as {other.sample.image}"
        if _differ(other, f):
            yield Finding(
                "error", "conflict", f.sample.image, f"{same}, but their masks differ ({_name(f)}, {_name(other)}); "
                "keep the right one",
            )  # fmt: skip
        else:
            yield Finding("warning", "repeated", f.sample.image, f"{same}, with the same mask; delete one of them")


def _name(f: Facts) -> str:
    return f.sample.mask.name if f.sample.mask else "none"


def _shared(facts: Sequence[Facts]) -> Iterator[Finding]:
    owners: dict[Path, dict[str, Facts]] = {}
    for digest, f in _telling(facts):
        if f.sample.mask is not None:
            owners.setdefault(f.sample.mask, {}).setdefault(digest, f)
    for mask, pictures in owners.items():
        if len(pictures) > 1:
            names = ", ".join(f.sample.image.name for f in list(pictures.values())[:3])
            yield Finding("warning", "shared-mask", mask, f"is the mask of {len(pictures)} different pictures: {names}")


def _stems(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Rows whose names disagree: the mask is called like another row's image, or nearly all other rows agree."""
    pairs = [(f, _key(f.sample.image), _key(f.sample.mask)) for f in facts if f.sample.mask is not None]
    owners = {key: f.sample.image.name for f, key, _ in pairs}
    unlike = [(f, mask) for f, image, mask in pairs if image != mask]
    agree = len(pairs) - len(unlike) >= _MOST * len(pairs)
    often = Counter(key for _, _, key in pairs)
    for f, key in unlike:
        other = owners.get(key) if often[key] == 1 or agree else None
        if f.sample.mask is not None and (other or agree):
            hint = f"which is called like {other}" if other else "while the other rows pair files of one name"
            said = f"has the mask {f.sample.mask.name}, {hint}; look at both"
            yield Finding("warning", "stems", f.sample.image, said)


def _key(path: Path) -> tuple[str | int, ...]:
    """What is left of a name without affixes, case, separators and leading zeros."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", _SENSORS.sub("", path.stem))
    kept = [w for w in map(str.lower, words) if w not in _AFFIXES]
    return tuple(int(w) if w.isdigit() else w for w in kept)
