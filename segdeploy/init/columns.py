"""Which columns of a table hold images, masks and the split: by what is in the files, then by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.data.findings import first_lines
from segdeploy.data.images import read_image
from segdeploy.data.rows import cell_text, read_rows
from segdeploy.data.table import IMAGE_SUFFIXES, PART_WORDS
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_LOOKED_AT = 8
_FEW = 64
"""A mask shows fewer colours than this; a photograph, thousands."""
_MASK_WORD = re.compile(r"mask|label|annot|seg|target|truth|\bgt\b|_gt|gt_", re.IGNORECASE)
_IMAGE_WORD = re.compile(r"image|img|photo|picture|input|rgb", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns; `split` is None where no column says which part a row belongs to."""

    image: str
    mask: str
    split: str | None


def find_columns(path: Path) -> Columns:
    """Look at a table and at some of the files that it names.

    Raises:
        MissingPartError: see `read_rows`.
        DataError: it cannot be read, or does not have one column of images and one of masks.
    """
    table = read_rows(path)
    if not table.items:
        raise DataError(f"{path}: expected at least one row, found none")
    names = [name for name in table.columns if name]
    rows = [{name: cell_text(row.get(name)) for name in names} for _, row in table.items]
    some = rows[:: max(1, len(rows) // _LOOKED_AT)][:_LOOKED_AT]
    colors = {name: _colors(path.parent, [row[name] for row in some]) for name in names}
    files = {name: count for name, count in colors.items() if count is not None}
    if len(files) < 2:
        found = f"only {next(iter(files))!r}" if files else "none"
        raise DataError(
            f"{path}: expected a column of image files and one of mask files, paths relative to {path.parent}; "
            f"of the columns {', '.join(map(repr, names))} {found} holds files that are there"
        )
    image, mask = _tell(path, files)
    split = next((name for name in names if name not in files and _is_split(name, rows)), None)
    return Columns(image, mask, split)


def check_split(path: Path, column: str) -> None:
    """Refuse rows that do not say their part: drawn at random, rows of the test part would be trained on.

    Raises:
        DataError: one line for each such row, up to fifty.
    """
    rows = read_rows(path).items
    blank = [f"{place}: {column!r} is empty" for place, row in rows if not cell_text(row.get(column)).strip()]
    if blank:
        said = f"{path}: {len(blank)} of {len(rows)} row(s) do not say their part; fill {column!r}, or remove the rows:"
        raise DataError(first_lines(said, blank))


def _colors(folder: Path, cells: list[str]) -> float | None:
    """The median number of colours in the files of a column; None where its cells are not image files."""
    paths = [folder / cell for cell in cells if cell]
    if not paths or any(p.suffix.lower() not in IMAGE_SUFFIXES or not p.is_file() for p in paths):
        return None
    counts = []
    for file in paths:
        try:
            pixels = read_image(file).reshape(-1, 3).astype(np.uint32)
        except DataError:
            continue  # training names it
        counts.append(len(np.unique(pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32))))
    return float(np.median(counts)) if counts else None


def _tell(path: Path, colors: dict[str, float]) -> tuple[str, str]:
    """The image column and the mask column among those that hold files."""
    masks = [name for name, count in colors.items() if count < _FEW]
    images = [name for name in colors if name not in masks]
    if not masks or not images:  # the files do not tell them apart
        masks = _narrow(list(colors), _MASK_WORD, "mask")
        images = [name for name in colors if name not in masks]
    masks = masks if len(masks) == 1 else _narrow(masks, _MASK_WORD, "mask")
    images = images if len(images) == 1 else _narrow(images, _IMAGE_WORD, "image")
    if len(images) == 1 and len(masks) == 1:
        return images[0], masks[0]
    seen = ", ".join(f"{name!r} (about {count:.0f} colours)" for name, count in colors.items())
    raise DataError(f"{path}: cannot tell the images from the masks among {seen}; name the columns image and mask")


def _narrow(names: list[str], word: re.Pattern[str], exact: str) -> list[str]:
    if exact in names:
        return [exact]
    return [name for name in names if word.search(name)] or names


def _is_split(name: str, rows: list[dict[str, str]]) -> bool:
    words = {row[name].strip().lower() for row in rows} - {""}
    return bool(words) and (words <= PART_WORDS.keys() or (name == "split" and words <= {"0", "1", "2"}))
