"""Oxford-IIIT Pet (Parkhi et al. 2012, https://www.robots.ox.ac.uk/~vgg/data/pets).

Its annotations/README: trimaps hold 1 for the pet, 2 for the background, 3 for pixels that are not classified
(the border); trainval.txt and test.txt hold "NAME CLASS SPECIES BREED".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.config.schema import NamedClass
from segdeploy.data.layouts.layout import Faults, Known, Layout

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.data.table import Part

_CLASSES = (
    NamedClass(name="pet", value=1, color=(230, 159, 0)),
    NamedClass(name="background", value=2, color=(0, 0, 0)),
    NamedClass(name="border", value=3, color=(255, 255, 255)),
)
_LISTS: dict[Part, str] = {"training": "annotations/trainval.txt", "test": "annotations/test.txt"}


def _read(root: Path) -> Known:
    faults = Faults(root)
    listed = {part: faults.words(file) for part, file in _LISTS.items()}
    parts = {
        part: faults.samples(
            (root / "images" / f"{stem}.jpg", root / "annotations" / "trimaps" / f"{stem}.png") for stem in stems
        )
        for part, stems in listed.items()
    }
    faults.raise_if_any()
    notes = ["To leave the border out of loss and scores instead: delete its line and set ignore_index: 3."]
    images = {p.stem for p in (root / "images").glob("[!.]*.jpg")}
    trimaps = {p.stem for p in (root / "annotations" / "trimaps").glob("[!.]*.png")}
    for what, alone in (("image", images - trimaps), ("trimap", trimaps - images)):
        if alone:
            notes.append(f"Left out, as the lists do: {len(alone)} {what}(s) without a partner ({_some(alone)}).")
    unlisted = (images & trimaps) - {stem for stems in listed.values() for stem in stems}
    if unlisted:
        notes.append(f"Left out: {len(unlisted)} image(s) that no list names ({_some(unlisted)}).")
    return Known(parts=parts, classes=_CLASSES, ignore_index=None, notes=tuple(notes))


def _some(stems: set[str]) -> str:
    return ", ".join(sorted(stems)[:3]) + (", ..." if len(stems) > 3 else "")


LAYOUT = Layout(
    name="pets",
    title="Oxford-IIIT Pet",
    looks="images/*.jpg, annotations/trimaps/*.png, annotations/trainval.txt and test.txt",
    markers=("images", "annotations/trimaps", "annotations/trainval.txt"),
    unmistakable=lambda _: True,
    read=_read,
)
