"""Pascal VOC segmentation (Everingham et al. 2010, http://host.robots.ox.ac.uk/pascal/VOC/voc2012).

Names and their order are those of the development kit (VOCinit.m); colours come from its VOCcolormap.m; 255 in
the palette PNGs of SegmentationClass is void, the border of objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.config.schema import NamedClass
from segdeploy.data.layouts.layout import Faults, Known, Layout

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.data.table import Part

_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LISTS: dict[Part, str] = {"training": "train", "validation": "val"}


def voc_color(label: int) -> tuple[int, int, int]:
    """RGB of a class id: its bits, three at a time, become the high bits of red, green and blue."""
    levels = [0, 0, 0]
    for step in range(8):
        for channel in range(3):
            levels[channel] |= (label >> (3 * step + channel) & 1) << (7 - step)
    return levels[0], levels[1], levels[2]


def _read(root: Path) -> Known:
    faults = Faults(root)
    parts = {
        part: faults.samples(
            (root / "JPEGImages" / f"{stem}.jpg", root / "SegmentationClass" / f"{stem}.png")
            for stem in faults.words(f"ImageSets/Segmentation/{name}.txt")
        )
        for part, name in _LISTS.items()
    }
    faults.raise_if_any()
    classes = tuple(NamedClass(name=name, color=voc_color(i)) for i, name in enumerate(_NAMES))
    note = "No test part: VOC's server scores its test images; ImageSets/Segmentation/trainval.txt is both lists here."
    return Known(parts=parts, classes=classes, ignore_index=255, notes=(note,))


LAYOUT = Layout(
    name="voc",
    title="Pascal VOC",
    looks="JPEGImages, SegmentationClass, ImageSets/Segmentation/train.txt and val.txt",
    markers=("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/train.txt"),
    # Annotation tools export other classes in the same form, and say so in a file of names.
    unmistakable=lambda root: not any((root / n).exists() for n in ("labelmap.txt", "class_names.txt", "classes.txt")),
    read=_read,
)
