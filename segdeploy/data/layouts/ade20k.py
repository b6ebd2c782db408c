"""ADE20K, scene parsing challenge 2016 (Zhou et al. 2017, http://sceneparsing.csail.mit.edu).

Masks hold 1 to 150 for the classes and 0 for everything else; the release's objectInfo150.txt holds, between tabs,
each class's index, share of the pixels, and at the end its names (https://github.com/CSAILVision/sceneparsing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.config.schema import NamedClass
from segdeploy.data.layouts.layout import Faults, Known, Layout

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.data.table import Part

_COUNT = 150
_INFO = "objectInfo150.txt"
_FOLDERS: dict[Part, str] = {"training": "training", "validation": "validation"}


def _read(root: Path) -> Known:
    faults = Faults(root)
    parts = {}
    for part, folder in _FOLDERS.items():
        images, masks = root / "images" / folder, root / "annotations" / folder
        parts[part] = faults.folder_pairs(images, "[!.]*.jpg", masks, lambda image: image.with_suffix(".png"))
    notes = [
        "0 (other objects) is ignored, as the challenge does; a class's id is its value less one.",
        "No test part: the labels of the challenge's test images are not public.",
    ]
    names = tuple(f"class_{i}" for i in range(1, _COUNT + 1))
    if (root / _INFO).exists():
        names = _names(faults) or names
    else:
        notes.append(f"The names are missing: there is no {_INFO} in the folder.")
    faults.raise_if_any()
    classes = tuple(NamedClass(name=name, value=i) for i, name in enumerate(names, start=1))
    return Known(parts=parts, classes=classes, ignore_index=0, notes=tuple(notes))


def _names(faults: Faults) -> tuple[str, ...]:
    """The first of each class's names, or all of them where two classes have the same first one."""
    rows = [line.split("\t") for line in faults.text_lines(_INFO)]
    full = {int(row[0]): row[-1].strip() for row in rows if row[0].strip().isdecimal()}
    if sorted(full) != list(range(1, _COUNT + 1)):
        faults.add(f"{faults.root / _INFO}: expected the classes 1 to {_COUNT}, found {len(full)}")
        return ()
    first = {i: name.partition(",")[0].strip() for i, name in full.items()}
    taken = list(first.values())
    return tuple(first[i] if taken.count(first[i]) == 1 else full[i] for i in sorted(full))


def _is_challenge(root: Path) -> bool:
    # Other data sets are stored in the same folders.
    return (root / _INFO).exists() or next((root / "images" / "training").glob("ADE_train_*.jpg"), None) is not None


LAYOUT = Layout(
    name="ade20k",
    title="ADE20K (scene parsing challenge)",
    looks="images/{training,validation}/*.jpg, annotations/{training,validation}/*.png, objectInfo150.txt",
    markers=("images/training", "annotations/training"),
    unmistakable=_is_challenge,
    read=_read,
)
