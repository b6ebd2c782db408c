"""One table into training, validation and test, so that anyone can cut it again in the same way."""

from __future__ import annotations

import csv
import difflib
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy import files
from segdeploy.config.preprocessing import Split
from segdeploy.data.rows import table_name
from segdeploy.data.table import PARTS, Tables, read_table
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segdeploy.config.schema import Data, RunConfig
    from segdeploy.data.table import Part, Sample

    Parts = dict[Part, list[Sample]]


def configured_tables(data: Data | None, given: Tables) -> Tables:
    """The tables that were `given`, and where they leave a part open, those that the configuration names.

    A given `dataset` stands alone; a given part replaces the configuration's `dataset`.

    Raises:
        DataError: the configuration names a table that is not there.
    """
    if data is None or given.dataset is not None:
        return given
    whole = given.training is None and given.validation is None
    return Tables(
        dataset=_path(data, "dataset") if whole else None,
        training=_path(data, "training_set") if given.training is None else given.training,
        validation=_path(data, "validation_set") if given.validation is None else given.validation,
        test=_path(data, "test_set") if given.test is None else given.test,
    )


def _path(data: Data, key: str) -> Path | None:
    text = getattr(data, key)
    if text is None:
        return None
    if not (path := Path(text)).exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"data.{key}: found nothing at {path}{hint}")
    return path


def read_parts(tables: Tables, config: RunConfig) -> Parts:
    """The samples of each part.

    Raises:
        DataError: neither one table nor both training and validation were given, or see `read_table` and
            `split_samples`.
    """
    split = config.preprocessing.split
    image, mask = config.image.column or config.image.name, config.mask.column or config.mask.name
    separate = {part: getattr(tables, part) for part in PARTS}
    if tables.dataset is not None:
        if any(table is not None for table in separate.values()):
            raise DataError("expected either --dataset or --training-set and --validation-set, got both")
        said = "split" if split is None else (split.column or "split") if split.type == "fixed" else None
        # A fixed split's column must be there and be filled, as that of the others.
        key = None if split is None or split.type == "random" else said or split.column or image
        samples = read_table(tables.dataset, image, mask, said, key)
        return split_samples(samples, split, config.trainer.seed, table_name(tables.dataset))
    if separate["training"] is None or separate["validation"] is None:
        raise DataError("expected --dataset, or both --training-set and --validation-set")
    return {
        part: [] if table is None else read_table(table, image, mask, split=None) for part, table in separate.items()
    }


def settle(split: Split | None, samples: Sequence[Sample]) -> Split:
    """What `split: null` means for a table: fixed where its rows say their part, else random."""
    return split or Split(type="fixed" if any(s.part for s in samples) else "random")


def split_samples(samples: Sequence[Sample], split: Split | None, seed: int, name: str) -> Parts:
    """One table into its parts, each in the table's order; `name` stands for the table in messages.

    - fixed: by `Sample.part`.
    - random: a permutation drawn with `seed`, cut by the probabilities.
    - stratify: the same for the rows of each `Sample.key`; every part gets its share of each value to within one
      row, and each value has a row in training.
    - hash: the CRC-32 of `Sample.key` as a share of 2^32, as in Ludwig. No row changes another row's part.

    Raises:
        DataError: a fixed split with rows that do not say their part, or a part that is empty although it should
            not be; training and validation never should.
    """
    split = settle(split, samples)
    shares = np.array(split.probabilities)
    if split.type == "fixed":
        filled = sum(s.part is not None for s in samples)
        if filled < len(samples):
            column = split.column or "split"
            raise DataError(f"{name}: expected {column!r} to be filled in every row, found {filled} of {len(samples)}")
        places = np.array([PARTS.index(s.part or "training") for s in samples])
    elif split.type == "random":
        places = _by_chance(len(samples), shares, seed)
    else:
        keys = [s.key or "" for s in samples]
        places = _by_strata(keys, shares, seed) if split.type == "stratify" else _by_hash(keys, shares)
    parts: Parts = {part: [samples[int(i)] for i in np.flatnonzero(places == n)] for n, part in enumerate(PARTS)}
    for part, share in zip(PARTS, split.probabilities, strict=True):
        if not parts[part] and (part != "test" or (split.type != "fixed" and share > 0)):
            advice = f"name it in {split.column or 'split'!r}" if split.type == "fixed" else "other `probabilities`"
            raise DataError(
                f"{name}: the {part} part is empty after the {split.type} split of {len(samples)} row(s); "
                f"give more rows, or {advice}"
            )
    return parts


def _by_chance(count: int, shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    cuts = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
    places = np.empty(count, np.int64)
    order = np.random.default_rng(seed).permutation(count)
    places[order] = np.searchsorted(cuts, np.arange(count), side="right")
    return places


def _by_strata(keys: Sequence[str], shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Largest remainder within each value. What rounding owes a part is carried on, so that the whole keeps its shares.

    Rare values come first: there the rounding is coarsest, and the common ones make up for it.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    places, owed = np.empty(len(keys), np.int64), np.zeros(len(PARTS))
    for key in sorted(rows, key=lambda k: (len(rows[k]), k)):
        quota = len(rows[key]) * shares
        given = np.floor(quota + 1e-9).astype(np.int64)  # 100 * 0.29 is a little less than 29
        given[0] = max(given[0], 1)
        # Nobody gets more than one row above the quota.
        claims = np.where(quota > given, quota - given + owed, -np.inf)
        given[np.argsort(-claims, kind="stable")[: len(rows[key]) - given.sum()]] += 1
        owed += quota - given
        places[rng.permutation(rows[key])] = np.repeat(np.arange(len(PARTS)), given)
    return places


def _by_hash(keys: Sequence[str], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    points = [zlib.crc32(key.encode("utf-8", "surrogatepass")) / 2**32 for key in keys]
    return np.searchsorted(np.cumsum(shares)[:2], points, side="right").astype(np.int64)


def describe_split(tables: Tables, config: RunConfig, parts: Parts) -> dict[str, Any]:
    """How the parts came about, as JSON-ready values: type, column, probabilities, seed, samples in each part."""
    about: dict[str, Any] = {"type": "tables", "column": None, "probabilities": None, "seed": None}
    if tables.dataset is not None:
        split = settle(config.preprocessing.split, [s for part in PARTS for s in parts[part]])
        by_chance = split.type in ("random", "stratify")
        default = {"fixed": "split", "hash": config.image.column or config.image.name}.get(split.type)
        about = {
            "type": split.type,
            "column": split.column or default,
            "probabilities": None if split.type == "fixed" else list(split.probabilities),
            "seed": config.trainer.seed if by_chance else None,
        }
    return about | {"samples": {part: len(parts[part]) for part in PARTS}}


def write_parts(folder: Path, parts: Parts, image: str, mask: str) -> dict[Part, str]:
    """One CSV of absolute paths for each part, in the columns `image` and `mask`; returns their SHA-256."""
    digests: dict[Part, str] = {}
    for part, samples in parts.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([image, mask])
        writer.writerows([s.image.resolve(), s.mask.resolve() if s.mask else ""] for s in samples)
        digests[part] = files.sha256(files.write_text(folder / f"{part}.csv", text.getvalue()))
    return digests


def written_parts(folder: Path) -> Tables:
    """The tables that `write_parts` left; an empty test part is left out."""
    test = folder / "test.csv"
    has_test = test.is_file() and len(test.read_text(encoding="utf-8").splitlines()) > 1
    return Tables(
        training=folder / "training.csv", validation=folder / "validation.csv", test=test if has_test else None
    )
