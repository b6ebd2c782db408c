"""Where the samples are: a table in a file or in memory, or a folder with `images/` and `masks/`."""

from __future__ import annotations

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segdeploy.data.rows import Table, cell_text, read_rows, table_name
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})
Part = Literal["training", "validation", "test"]
PARTS: tuple[Part, ...] = ("training", "validation", "test")
PART_WORDS: dict[str, Part] = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What files, folders and cells call the parts, in lower case."""
_CELLS: dict[str, Part] = {**PART_WORDS, "0": "training", "1": "validation", "2": "test"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One row.

    The image, its mask (None where only prediction is wanted), the part that the table says it belongs to, and
    the text of the cell that a split goes by.
    """

    image: Path
    mask: Path | None = None
    part: Part | None = None
    key: str | None = None


def read_table(
    table: Table,
    image: str = "image",
    mask: str | None = "mask",
    split: str | None = "split",
    key: str | None = None,
) -> list[Sample]:
    """The samples of a table, in its order.

    Args:
        table: a file (see `read_rows`), whose paths are relative to its folder; a folder that holds `images/` and
            `masks/` with files of the same stem; a dict of lists or a DataFrame, whose paths are relative to the
            working directory.
        image, mask: the columns, or the folders' names (`images`, `masks` also serve). With mask None only images
            are read; a folder may then also hold the images itself.
        split: the column that says which part a row belongs to, where there is one; None: no row says.
        key: the column that becomes `Sample.key`; every row must fill it. A folder has the image's relative path
            alone, as `image`.

    Raises:
        DataError: no such table, no such column, an unknown word in `split`, an empty cell, a stem without its
            partner, or no rows.
        MissingPartError: see `read_rows`.
    """
    path = Path(table) if isinstance(table, (str, os.PathLike)) else None
    if path is not None and not path.exists():
        raise DataError(f"{path}: expected a table or a folder with images/ and masks/, found nothing there")
    if path is not None and path.is_dir():
        samples = _from_folders(path, image, mask, key)
    else:
        samples = _from_rows(table, image, mask, split, key)
    if not samples:
        raise DataError(f"{table_name(table)}: expected at least one row, found none")
    return samples


def _from_rows(table: Table, image: str, mask: str | None, split: str | None, key: str | None) -> list[Sample]:
    rows = read_rows(table)
    paths = [image] if mask is None else [image, mask]
    for column in [*paths, *([] if key is None else [key])]:
        if column not in rows.columns:
            found = ", ".join(rows.columns) or "none"
            raise DataError(f"{table_name(table)}: expected a column {column!r}, found {found}")
    samples = []
    for place, row in rows.items:
        for column in paths:
            value = row.get(column)
            if cell_text(value) and not isinstance(value, (str, os.PathLike)):
                raise DataError(f"{place}: expected a path in {column!r}, found a {type(value).__name__}")
        if not all(cell_text(row.get(column)) for column in paths):
            raise DataError(f"{place}: expected a path in {' and '.join(map(repr, paths))}, found an empty cell")
        if key is not None and not cell_text(row.get(key)):
            raise DataError(f"{place}: expected a value in {key!r}, found an empty cell")
        samples.append(
            Sample(
                rows.folder / row[image],
                None if mask is None else rows.folder / row[mask],
                None if split is None else _part(row.get(split), split, place),
                None if key is None else cell_text(row[key]),
            )
        )
    return samples


def _part(value: Any, column: str, place: str) -> Part | None:
    word = cell_text(value)
    if word and word.strip().lower() not in _CELLS:
        raise DataError(f"{place}: expected train, validation or test (or 0, 1, 2) in {column!r}, got {word!r}")
    return _CELLS[word.strip().lower()] if word else None


def _from_folders(path: Path, image: str, mask: str | None, key: str | None) -> list[Sample]:
    if key not in (None, image):
        raise DataError(f"{path}: expected a table with a column {key!r}, found a folder")
    pairs: list[tuple[Path, Path | None]]
    if mask is None:
        inside = [path / name for name in (image, "images") if (path / name).is_dir()]
        pairs = [(file, None) for file in find_images(inside[:1] or [path])]
    else:
        images, masks = by_stem(_subfolder(path, image, "images")), by_stem(_subfolder(path, mask, "masks"))
        lonely = sorted(set(images) ^ set(masks))
        if lonely:
            where = "image" if lonely[0] in images else "mask"
            way_out = f", or let segdeploy init {shlex.quote(str(path))} --skip-unpaired list the pairs in a table"
            raise DataError(
                f"{path}: {len(lonely)} file(s) without a partner; the first is the {where} {lonely[0]!r}; take them "
                f"away{way_out if set(images) & set(masks) else ''}"
            )
        pairs = [(images[stem], masks[stem]) for stem in sorted(images)]
    return [Sample(i, m, key=None if key is None else i.relative_to(path).as_posix()) for i, m in pairs]


def _subfolder(path: Path, *names: str) -> Path:
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise DataError(f"{path}: expected the folders images/ and masks/, found no {names[-1]}/")


def by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder, at any depth, by their path inside it without the suffix.

    Raises:
        DataError: two have the same stem, or there is none.
    """
    found: dict[str, Path] = {}
    for file in find_images([folder]):
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{folder}: {found[stem].name} and {file.name} have the same stem")
        found[stem] = file
    return found


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The image files among `paths`: files as they are named, folders searched to any depth, sorted.

    Raises:
        DataError: a path that does not exist, or a folder without an image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise DataError(f"{path}: expected image files ({', '.join(sorted(IMAGE_SUFFIXES))}), found none")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # two DataFrames have no simple ==
class Tables:
    """What a user hands to training: one table that is split, or one for each part."""

    dataset: Table | None = None
    training: Table | None = None
    validation: Table | None = None
    test: Table | None = None

    def describe(self) -> dict[str, str | None]:
        """Each table's absolute path, or its kind where it is in memory."""
        given = {name: getattr(self, name) for name in ("dataset", *PARTS)}
        return {
            name: str(Path(t).resolve()) if isinstance(t, (str, os.PathLike)) else None if t is None else table_name(t)
            for name, t in given.items()
        }


def fingerprint(samples: Iterable[Sample]) -> str:
    """SHA-256 over the bytes of all images and masks, in order: the same data give the same word."""
    digest = hashlib.sha256()
    for sample in samples:
        for file in (sample.image, sample.mask):
            if file is not None:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
