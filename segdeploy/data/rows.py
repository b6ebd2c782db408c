"""Any form of a table, in a file or in memory, as rows; pandas is asked only for files that nothing else here reads."""

from __future__ import annotations

import csv
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from segdeploy.errors import DataError, MissingPartError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Frame(Protocol):
    """A pandas DataFrame, as far as it matters here."""

    def to_dict(self, orient: Literal["list"], /) -> dict[Any, list[Any]]:
        """The columns by name."""


Table = str | os.PathLike[str] | Mapping[str, Sequence[Any]] | Frame
"""A file, a folder, a dict of lists, or a DataFrame."""

# Reader, the package that it needs beside pandas, and its options. By default "NA" in a sheet would become NaN.
_BY_PANDAS: dict[str, tuple[str, str, dict[str, Any]]] = {
    ".parquet": ("read_parquet", "pyarrow", {}),
    ".feather": ("read_feather", "pyarrow", {}),
    ".xlsx": ("read_excel", "openpyxl", {"keep_default_na": False}),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as it was written.

    `items` holds, in order, each row's place for messages (FILE:LINE or NAME[INDEX]) and its cells by column;
    relative paths in the cells start from `folder`.
    """

    columns: list[str]
    items: list[tuple[str, dict[str, Any]]]
    folder: Path


def table_name(table: Table) -> str:
    """What messages and descriptions call a table: its path, or its kind for one in memory."""
    if isinstance(table, (str, os.PathLike)):
        return os.fspath(table)
    return f"table in memory ({type(table).__name__})"


def read_rows(table: Table) -> Rows:
    """The rows of a table that is no folder.

    Args:
        table: .csv (also any other suffix), .tsv, .json (a list of records or an object of lists), .jsonl,
            .parquet, .feather, .xlsx; a dict of lists; a DataFrame.

    Raises:
        DataError: a file that cannot be read or is not what its suffix says, or columns of unequal length.
        MissingPartError: pandas or its engine is not installed, and the file needs them.
    """
    if isinstance(table, (str, os.PathLike)):
        return _from_file(Path(table))
    name = table_name(table)
    if isinstance(table, Mapping):
        return _from_columns(table, name, Path())
    if hasattr(table, "to_dict"):
        return _from_columns(table.to_dict("list"), name, Path())
    raise DataError(f"expected a table (a path, a dict of lists or a DataFrame), got a {type(table).__name__}")


def cell_text(value: Any) -> str:
    """A cell as text; None, NaN and pandas' NA are empty, and 1.0 is "1", as pandas writes whole numbers with gaps."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return "" if text in ("None", "nan", "<NA>", "NaT") else text


def _from_file(path: Path) -> Rows:
    suffix = path.suffix.lower()
    if suffix in _BY_PANDAS:
        return _by_pandas(path, *_BY_PANDAS[suffix])
    kind = {".tsv": "TSV", ".json": "JSON", ".jsonl": "JSON Lines"}.get(suffix, "CSV")
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            if kind == "JSON":
                return _from_json(json.load(handle), path)
            if kind == "JSON Lines":
                records = [(f"{path}:{n}", json.loads(line)) for n, line in enumerate(handle, 1) if line.strip()]
                return _from_records(records, path.parent)
            reader = csv.DictReader(handle, delimiter="\t" if kind == "TSV" else ",")
            columns = list(reader.fieldnames or ())
            return Rows(columns, [(f"{path}:{reader.line_num}", row) for row in reader], path.parent)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, csv.Error, RecursionError) as e:  # ValueError: not UTF-8, or not JSON
        raise DataError(f"{path}: expected a {kind} file in UTF-8: {e}") from e


def _from_json(content: Any, path: Path) -> Rows:
    if isinstance(content, list):
        return _from_records([(f"{path}[{i}]", record) for i, record in enumerate(content)], path.parent)
    if isinstance(content, dict):
        return _from_columns(content, str(path), path.parent)
    raise DataError(f"{path}: expected a list of records or an object of lists, found a {type(content).__name__}")


def _from_records(records: Iterable[tuple[str, Any]], folder: Path) -> Rows:
    items = list(records)
    for place, record in items:
        if not isinstance(record, dict):
            raise DataError(f'{place}: expected a record such as {{"image": ..., "mask": ...}}, found {record!r:.60}')
    return Rows(list(dict.fromkeys(column for _, record in items for column in record)), items, folder)


def _from_columns(columns: Mapping[Any, Any], name: str, folder: Path) -> Rows:
    for column, cells in columns.items():
        if isinstance(cells, (str, bytes, Mapping)) or not hasattr(cells, "__len__"):
            raise DataError(f"{name}: expected a list of cells in {column!r}, found a {type(cells).__name__}")
    lengths = {str(column): len(cells) for column, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{column!r} has {length}" for column, length in lengths.items())
        raise DataError(f"{name}: expected columns of equal length, but {said}")
    rows = (dict(zip(lengths, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
    return Rows(list(lengths), [(f"{name}[{i}]", row) for i, row in enumerate(rows)], folder)


def _by_pandas(path: Path, reader: str, engine: str, options: dict[str, Any]) -> Rows:
    try:
        frame = getattr(importlib.import_module("pandas"), reader)(path, **options)
    except ImportError as e:
        raise MissingPartError(
            f"{path}: {path.suffix} needs pandas and {engine}; `pip install pandas {engine}`, or save a CSV file"
        ) from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}") from e
    except Exception as e:  # each of pandas' engines has errors of its own
        said = " ".join(str(e).split()) or type(e).__name__
        raise DataError(f"{path}: expected a {path.suffix} table: {said}") from e
    return _from_columns(frame.to_dict("list"), str(path), path.parent)
