"""Cityscapes (Cordts et al. 2016, https://www.cityscapes-dataset.com).

Names, ids and colours are those of cityscapesscripts/helpers/labels.py
(https://github.com/mcordts/cityscapesScripts): ids with a train id below 255 are classes, in that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.config.schema import NamedClass
from segdeploy.data.layouts.layout import Faults, Known, Layout

if TYPE_CHECKING:
    from pathlib import Path, PurePath

    from segdeploy.data.table import Part

_CLASSES = tuple(
    NamedClass(name=name, value=value, color=color)
    for value, name, color in (
        (7, "road", (128, 64, 128)),
        (8, "sidewalk", (244, 35, 232)),
        (11, "building", (70, 70, 70)),
        (12, "wall", (102, 102, 156)),
        (13, "fence", (190, 153, 153)),
        (17, "pole", (153, 153, 153)),
        (19, "traffic light", (250, 170, 30)),
        (20, "traffic sign", (220, 220, 0)),
        (21, "vegetation", (107, 142, 35)),
        (22, "terrain", (152, 251, 152)),
        (23, "sky", (70, 130, 180)),
        (24, "person", (220, 20, 60)),
        (25, "rider", (255, 0, 0)),
        (26, "car", (0, 0, 142)),
        (27, "truck", (0, 0, 70)),
        (28, "bus", (0, 60, 100)),
        (31, "train", (0, 80, 100)),
        (32, "motorcycle", (0, 0, 230)),
        (33, "bicycle", (119, 11, 32)),
    )
)
# unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, parking, rail track,
# guard rail, bridge, tunnel, polegroup, caravan, trailer
_IGNORED = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
_FOLDERS: dict[Part, str] = {"training": "train", "validation": "val"}
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def _mask_name(image: PurePath) -> PurePath:
    return image.with_name(image.name.removesuffix(_IMAGE) + _MASK)


def _read(root: Path) -> Known:
    faults = Faults(root)
    parts = {}
    for part, folder in _FOLDERS.items():
        images, masks = root / "leftImg8bit" / folder, root / "gtFine" / folder
        parts[part] = faults.folder_pairs(images, f"*/*{_IMAGE}", masks, _mask_name)
    faults.raise_if_any()
    note = "No test part: the labels of Cityscapes' test images are dummies; its server scores them."
    return Known(parts=parts, classes=_CLASSES, ignore_index=_IGNORED, notes=(note,))


LAYOUT = Layout(
    name="cityscapes",
    title="Cityscapes",
    looks=f"leftImg8bit/{{train,val}}/CITY/*{_IMAGE}, gtFine/{{train,val}}/CITY/*{_MASK}",
    markers=("leftImg8bit/train", "gtFine/train"),
    unmistakable=lambda _: True,
    read=_read,
)
