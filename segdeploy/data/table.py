"""Where the samples are: a CSV file, or a folder with `images/` and `masks/`."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from segdeploy.config.schema import Data, RunConfig, Split

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})
Part = Literal["training", "validation", "test"]
PARTS: tuple[Part, ...] = ("training", "validation", "test")
_PART_NAMES: dict[str, Part] = {
    "0": "training", "train": "training", "training": "training",
    "1": "validation", "val": "validation", "valid": "validation", "validation": "validation",
    "2": "test", "test": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One row: the image, its mask (None where only prediction is wanted), and the part it belongs to."""

    image: Path
    mask: Path | None = None
    part: Part | None = None


def read_table(path: Path, image: str = "image", mask: str = "mask", split: str = "split") -> list[Sample]:
    """The samples of a table, in its order.

    Args:
        path: a CSV file, whose paths are relative to its folder, or a folder that holds `images/` and
            `masks/` with files of the same stem.
        image, mask: the columns, or the folders' names (`images`, `masks` also serve).
        split: the column that says which part a row belongs to, where there is one.

    Raises:
        DataError: no such table, no such column, an unknown word in `split`, a stem without its partner,
            or no rows.
    """
    if path.is_dir():
        samples = _from_folders(path, image, mask)
    elif path.is_file():
        samples = _from_csv(path, image, mask, split)
    else:
        raise DataError(f"{path}: expected a CSV file or a folder with images/ and masks/, found nothing there")
    if not samples:
        raise DataError(f"{path}: expected at least one row, found none")
    return samples


def _from_csv(path: Path, image: str, mask: str, split: str) -> list[Sample]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path}: expected a CSV file in UTF-8: {e}") from e
    for column in (image, mask):
        if column not in columns:
            raise DataError(f"{path}: expected a column {column!r}, found {', '.join(columns) or 'none'}")
    samples = []
    for number, row in rows:
        if not row[image] or not row[mask]:
            raise DataError(f"{path}:{number}: expected a path in {image!r} and {mask!r}, found an empty cell")
        part = None
        if split in columns and row[split]:
            part = _PART_NAMES.get(row[split].strip().lower())
            if part is None:
                raise DataError(
                    f"{path}:{number}: expected train, validation or test (or 0, 1, 2) in {split!r}, got {row[split]!r}"
                )
        samples.append(Sample(path.parent / row[image], path.parent / row[mask], part))
    return samples


def _from_folders(path: Path, image: str, mask: str) -> list[Sample]:
    images = _by_stem(_subfolder(path, image, "images"))
    masks = _by_stem(_subfolder(path, mask, "masks"))
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        where = "image" if lonely[0] in images else "mask"
        raise DataError(f"{path}: {len(lonely)} file(s) without a partner; the first is the {where} {lonely[0]!r}")
    return [Sample(images[stem], masks[stem]) for stem in sorted(images)]


def _subfolder(path: Path, *names: str) -> Path:
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise DataError(f"{path}: expected the folders images/ and masks/, found no {names[-1]}/")


def _by_stem(folder: Path) -> dict[str, Path]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a user hands to training: one table that is split, or one for each part."""

    dataset: Path | None = None
    training: Path | None = None
    validation: Path | None = None
    test: Path | None = None


def configured_tables(data: Data | None, folder: Path, given: Tables) -> Tables:
    """The tables that were `given`, and where they leave a part open, those of a configuration in `folder`.

    A given `dataset` stands alone; a given part replaces the configuration's `dataset`.
    """
    if data is None or given.dataset is not None:
        return given
    own = {
        "dataset": None if given.training or given.validation else data.dataset,
        "training": data.training_set,
        "validation": data.validation_set,
        "test": data.test_set,
    }
    paths = {part: None if path is None else folder / path for part, path in own.items()}
    return Tables(**{part: getattr(given, part) or path for part, path in paths.items()})


def read_parts(tables: Tables, config: RunConfig) -> dict[Part, list[Sample]]:
    """The samples of each part.

    Raises:
        DataError: neither one table nor both training and validation were given, or see `read_table`.
    """
    split = config.preprocessing.split
    columns = (config.image.column or config.image.name, config.mask.column or config.mask.name)
    column = split.column if split else "split"
    if tables.dataset is not None:
        if tables.training or tables.validation or tables.test:
            raise DataError("expected either --dataset or --training-set and --validation-set, got both")
        samples = read_table(tables.dataset, *columns, column)
        return split_samples(samples, split, config.trainer.seed, str(tables.dataset))
    if tables.training is None or tables.validation is None:
        raise DataError("expected --dataset, or both --training-set and --validation-set")
    return {
        "training": read_table(tables.training, *columns, column),
        "validation": read_table(tables.validation, *columns, column),
        "test": read_table(tables.test, *columns, column) if tables.test else [],
    }


def split_samples(samples: Sequence[Sample], split: Split | None, seed: int, name: str) -> dict[Part, list[Sample]]:
    """One table into its parts: by its own column where it has one, else at random with a fixed seed.

    Raises:
        DataError: a fixed split without the column, a column that is filled in some rows only, or a part for
            training or validation that is empty.
    """
    filled = sum(s.part is not None for s in samples)
    fixed = filled == len(samples)
    if not fixed and (split.type == "fixed" if split else filled):
        column = split.column if split else "split"
        raise DataError(f"{name}: expected {column!r} to be filled in every row, found {filled} of {len(samples)}")
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    if fixed and (split is None or split.type == "fixed"):
        for sample in samples:
            parts[sample.part or "training"].append(sample)
    else:
        shares = np.cumsum(split.probabilities if split else (0.7, 0.1, 0.2))
        order = np.random.default_rng(seed).permutation(len(samples))
        cuts = np.round(shares / shares[-1] * len(samples)).astype(int)
        for part, low, high in zip(PARTS, (0, *cuts), cuts, strict=False):
            parts[part] = [samples[i] for i in sorted(order[low:high])]
    for part in PARTS[:2]:
        if not parts[part]:
            raise DataError(f"{name}: the {part} part is empty; give more rows or other shares")
    return parts


def fingerprint(samples: Iterable[Sample]) -> str:
    """SHA-256 over the bytes of all images and masks, in order: the same data give the same word."""
    digest = hashlib.sha256()
    for sample in samples:
        for file in (sample.image, sample.mask):
            if file is not None:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
