"""A folder of images and a folder of masks, paired by the files' stems."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdeploy.data.findings import first_lines
from segdeploy.data.table import Sample, by_stem
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "photos", "inputs", "input", "frames", "rgb")
_MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "segmentationclass",
    "segmentationclasspng", "ground_truth", "groundtruth", "gt", "targets", "target", "segmentation", "segmentations",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The samples of two folders inside `root`; `plain`: `read_table(root)` finds the same."""

    root: Path
    image_folder: Path
    mask_folder: Path
    samples: list[Sample]
    plain: bool
    unpaired: int = 0
    """Files that were left out, as they have no partner."""

    @property
    def image_column(self) -> str:
        """What `read_table` calls the folder of images."""
        return "image" if self.image_folder.name == "images" else self.image_folder.name

    @property
    def mask_column(self) -> str:
        """What `read_table` calls the folder of masks."""
        return "mask" if self.mask_folder.name == "masks" else self.mask_folder.name


def find_pairs(root: Path, *, skip_unpaired: bool = False) -> Pairs | None:
    """The images and masks inside a folder; None where it has no such two folders.

    Masks have the images' stems, or the stems with the same ending, such as 0001.jpg and 0001_mask.png.

    Args:
        root: the folder.
        skip_unpaired: leave out the files that have no partner.

    Raises:
        DataError: one line for each file that has no partner, up to fifty; no file has one.
    """
    image_folder, mask_folder = _folder(root, _IMAGES), _folder(root, _MASKS)
    if image_folder is None or mask_folder is None:
        return None
    images, masks = by_stem(image_folder), by_stem(mask_folder)
    ending = _ending(images, masks)
    partner = {stem.removesuffix(ending): file for stem, file in masks.items() if stem.endswith(ending)}
    lonely = [f"{file}: has no mask" for stem, file in images.items() if stem not in partner]
    paired = {file for stem, file in partner.items() if stem in images}
    lonely += [f"{file}: has no image" for file in masks.values() if file not in paired]
    samples = [Sample(images[stem], partner[stem]) for stem in sorted(images.keys() & partner.keys())]
    if lonely and not (skip_unpaired and samples):
        way_out = "; --skip-unpaired leaves them out" if samples else ""
        raise DataError(first_lines(f"{root}: {len(lonely)} file(s) without a partner{way_out}:", lonely))
    return Pairs(
        root=root,
        image_folder=image_folder,
        mask_folder=mask_folder,
        samples=samples,
        plain=not ending and not lonely,
        unpaired=len(lonely),
    )


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
    inside = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir()}
    return next((inside[name] for name in names if name in inside), None)


def _ending(images: Iterable[str], masks: Iterable[str]) -> str:
    """What the masks' stems have behind the images': of all endings that which pairs the most files."""
    stems = set(images)
    count = Counter(mask[end:] for mask in masks for end in range(1, len(mask) + 1) if mask[:end] in stems)
    return max(count, key=lambda ending: (count[ending], -len(ending)), default="")
