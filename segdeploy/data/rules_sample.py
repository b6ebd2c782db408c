"""Rules about one sample: an image and its mask, against the class map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.classes import IGNORE
from segdeploy.data.facts import PictureFacts
from segdeploy.data.findings import Finding
from segdeploy.data.masks import (
    FORMATS,
    NO_JPEG,
    few,
    labels_of_colors,
    not_colors,
    not_ids,
    stray_colors,
    stray_values,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from segdeploy.classes import ClassMap
    from segdeploy.data.facts import Facts, MaskFacts

_SMOOTH = 32
"""So many values that no class owns are no slip of a pen: edges were smoothed, or the file went through JPEG."""
_FLAT = 64
"""Hardly a photograph has so few colours, hardly a mask so many, even with smoothed edges."""


def check_sample(facts: Facts, classes: ClassMap | None) -> Iterator[Finding]:
    """All findings about one sample; without classes none about its labels.

    unreadable, jpeg-mask, swapped, mask-kind, stray, smoothed, size: it cannot be trained with.
    copy, palette: it can, but would teach something wrong. alpha, orientation, pages: worth a look.
    """
    sample, image, mask = facts.sample, facts.image, facts.mask
    if isinstance(image, str):
        yield Finding("error", "unreadable", sample.image, image)
    elif image.pages > 1 and image.format == "TIFF":
        yield Finding("warning", "pages", sample.image, _PAGES.format(image.pages))
    if sample.mask is None:
        return
    if isinstance(mask, str):
        yield Finding("error", "unreadable", sample.mask, mask)
    elif mask is not None:
        if isinstance(image, PictureFacts):
            yield from _pair(sample.mask, mask, sample.image, image)
        if mask.format not in FORMATS or sample.mask.suffix.lower() in (".jpg", ".jpeg"):
            yield Finding("error", "jpeg-mask", sample.mask, NO_JPEG)
        elif classes is not None:
            yield from _values(sample.mask, mask, classes)


_PAGES = "has {} pages, and only the first counts; save each as a file of its own"


def _pair(path: Path, mask: MaskFacts, image_path: Path, image: PictureFacts) -> Iterator[Finding]:
    if path == image_path or (mask.digest == image.digest and image.colors > 1):
        yield Finding("error", "copy", path, f"is a copy of its image {image_path}; put the mask in its place")
    elif image.colors <= _FLAT < mask.distinct:
        yield Finding(
            "error", "swapped", path, f"looks like a photograph ({mask.distinct} colours) and {image_path} like a mask "
            f"({image.colors}); are the columns swapped?",
        )  # fmt: skip
    if mask.size != image.size:
        hint = "make them one size, or pair the right files"
        if mask.size == image.size[::-1]:
            hint = "they are turned against each other; turn one by 90 degrees"
            if image.orientation != mask.orientation:
                hint = "the EXIF tag turns only one of them; remove it, or turn the other's pixels"
        yield Finding(
            "error", "size", path, f"expected the size of {image_path.name}, {_size(image.size)}, "
            f"found {_size(mask.size)}; {hint}",
        )  # fmt: skip
    elif image.orientation != mask.orientation and (image.orientation in (2, 3, 4) or image.size[0] == image.size[1]):
        yield Finding(
            "warning", "orientation", path,
            f"is not turned by the EXIF tag that turns {image_path.name}; look whether they lie upon each other",
        )  # fmt: skip


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _values(path: Path, mask: MaskFacts, classes: ClassMap) -> Iterator[Finding]:
    if mask.pages > 1:
        yield Finding("warning", "pages", path, _PAGES.format(mask.pages))
    by_color = classes.encoding == "color"
    if by_color and not mask.colors():
        yield Finding("error", "mask-kind", path, not_colors(mask.mode))
        return
    if not by_color and mask.kind == "colors":
        yield Finding("error", "mask-kind", path, f"{not_ids(mask.mode)} and set `encoding: color`")
        return
    labels = mask.labels(classes)
    strays = np.flatnonzero(labels < 0).tolist()
    unkept = mask.distinct - len(mask.codes)
    if len(strays) + unkept >= _SMOOTH:
        what = "colours" if by_color else "values"
        yield Finding(
            "error", "smoothed", path, f"{len(strays) + unkept:,} {what} that no class owns: its edges were smoothed, "
            "or it went through JPEG; export masks without antialiasing, resize them by nearest neighbour, save as PNG",
        )  # fmt: skip
    elif strays:
        yield Finding("error", "stray", path, *_stray(mask, strays, classes))
    elif mask.hidden:
        yield Finding(
            "warning", "alpha", path, f"{mask.hidden:,} pixels are transparent and count by the colour that they hide; "
            "remove the alpha channel",
        )  # fmt: skip
    if not by_color and mask.mode in ("P", "PA") and (said := _other_palette(mask, labels.tolist(), classes)):
        yield Finding("error", "palette", path, said)


def _stray(mask: MaskFacts, strays: list[int], classes: ClassMap) -> tuple[str, str]:
    """The message, and what of it does not depend on the file."""
    by_color = classes.encoding == "color"
    codes = mask.colors() if by_color else mask.codes
    found = [codes[i] for i in strays]
    where = []
    for i in strays[:4]:
        row, column = divmod(mask.first[i], mask.size[1])
        code = unpack(codes[i]) if by_color else codes[i]
        where.append(f"{code} in {mask.pixels[i]:,} pixels, first at row {row}, column {column}")
    said = stray_colors(found) if by_color else stray_values(found, classes)
    way_out = _way_out(mask, found, classes)
    return f"{said} ({'; '.join(where)}{'; ...' if len(strays) > 4 else ''}); {way_out}", f"{said}; {way_out}"


def _way_out(mask: MaskFacts, found: list[int], classes: ClassMap) -> str:
    if classes.encoding == "color":
        if mask.kind != "colors" and max(mask.codes) < len(classes):
            return "its pixel values look like class ids: set `encoding: class_id`"
        return "add them to `mask_colors` of a class, or to `ignore_color`"
    if mask.mode in ("P", "PA") and (labels_of_colors(np.array(mask.shown), classes) >= 0).all():
        return "its palette holds the classes' colours: set `encoding: color`"
    if mask.mode.startswith("I") and all(c % 257 == 0 for c in mask.codes):
        return "these are 8-bit values times 257: save masks with 8 bits"
    return "give a class this `value`, or add it to `ignore_index`"


def _other_palette(mask: MaskFacts, labels: list[int], classes: ClassMap) -> str:
    """What is said of a palette that shows an index in the colour of another class; black says nothing."""
    owners = labels_of_colors(np.array(mask.shown), classes).tolist()
    wrong = [
        f"index {code} means {classes.names[label]!r} and is shown as {unpack(color)}, {classes.names[owner]!r}"
        for code, label, color, owner in zip(mask.codes, labels, mask.shown, owners, strict=True)
        if color and 0 <= label < IGNORE and 0 <= owner < IGNORE and owner != label
    ]
    if not wrong:
        return ""
    return f"{few(wrong, 3)}: its palette is not in the order of the classes; set `encoding: color`, or reorder them"
