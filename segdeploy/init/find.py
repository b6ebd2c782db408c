"""Where a data set's images and masks are: a known layout, tables, or folders."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from segdeploy.data.layouts import Known, find_layout, known_layouts
from segdeploy.data.rows import read_rows
from segdeploy.data.table import PART_WORDS, PARTS, Part, Sample, read_table
from segdeploy.errors import DataError
from segdeploy.init.columns import Columns, check_split, find_columns
from segdeploy.init.pairs import find_pairs

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.init.pairs import Pairs

TableName = Part | Literal["dataset"]
_WORDS: dict[Part, list[str]] = {part: [word for word, p in PART_WORDS.items() if p == part] for part in PARTS}
HELD_OUT = 10
"""Every so many training samples become the validation part where a data set has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A data set's samples, and how a configuration can point at them.

    `samples` has the one key "dataset", or "training", "validation" and perhaps "test". `paths` are the tables or
    folders that hold just these; None where tables are to be written. `root` is the folder that all files are in.
    """

    root: Path
    samples: dict[TableName, list[Sample]]
    paths: dict[TableName, Path] | None = None
    image_column: str = "image"
    mask_column: str = "mask"
    split_column: str | None = None
    split_note: str = ""
    title: str | None = None
    known: Known | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def training(self) -> list[Sample]:
        """The samples that will be trained on; all of them where the split is still to be drawn."""
        whole = self.samples.get("dataset", [])
        return self.samples.get("training") or [s for s in whole if s.part in (None, "training")]

    @property
    def all(self) -> list[Sample]:
        """The samples of all parts."""
        return [s for samples in self.samples.values() for s in samples]


def find(data: Path, layout: str | None = None, *, skip_unpaired: bool = False) -> Found:
    """Look for images and masks in a folder or a table (see `read_rows`).

    Args:
        data: the folder or the table.
        layout: the name of a known one, see `segdeploy.data.layouts`; None: whatever is found.
        skip_unpaired: in two folders, leave out the files that have no partner.

    Raises:
        DataError: there is no such thing, or its form is none of those that can be read, or `skip_unpaired` with
            another form than two folders.
    """
    if data.is_file():
        if layout is not None:
            raise DataError(f"{data}: --layout {layout} needs a folder, found a file")
        _refuse_skipping(data, "a table", skip_unpaired)
        return _complete(_from_table(data, find_columns(data)))
    if not data.is_dir():
        raise DataError(f"{data}: expected a table or a folder, found nothing there")
    matched = find_layout(data, layout)
    if matched is not None:
        _refuse_skipping(data, f"the layout of {matched[0].title}", skip_unpaired)
        known = matched[0].read(matched[1])
        return _complete(
            Found(
                root=matched[1],
                samples={part: samples for part, samples in known.parts.items()},  # noqa: C416
                split_note="The split is the data set's own.",
                title=matched[0].title,
                known=known,
                notes=known.notes,
            )
        )
    found = _from_part_tables(data) or _from_only_table(data)
    if found is not None:
        _refuse_skipping(data, "tables", skip_unpaired)
    found = found or _from_folders(data, skip_unpaired)
    if found is None:
        raise DataError(
            f"{data}: expected a folder with images/ and masks/ (also inside train/ and val/), with train.csv and "
            f"val.csv, or one of the layouts {known_layouts()}"
        )
    return _complete(found)


def _refuse_skipping(data: Path, what: str, skip_unpaired: bool) -> None:
    if skip_unpaired:
        raise DataError(f"{data}: --skip-unpaired is for a folder with images/ and masks/, found {what}")


def _from_table(path: Path, columns: Columns) -> Found:
    if columns.split is not None:
        check_split(path, columns.split)
    samples = read_table(path, columns.image, columns.mask, columns.split or "split")
    note = f"The column {columns.split!r} says which part a row belongs to." if columns.split else ""
    return Found(
        root=path.parent,
        samples={"dataset": samples},
        paths={"dataset": path},
        image_column=columns.image,
        mask_column=columns.mask,
        split_column=columns.split,
        split_note=note,
    )


def _from_part_tables(data: Path) -> Found | None:
    """train.csv, val.csv and perhaps test.csv."""
    files = {part: _named(data, [f"{word}.csv" for word in words]) for part, words in _WORDS.items()}
    paths: dict[TableName, Path] = {part: file for part, file in files.items() if file is not None}
    if "training" not in paths:
        return None
    columns = find_columns(paths["training"])
    notes = []
    if "test" in paths and columns.mask not in read_rows(paths["test"]).columns:
        notes.append(f"{paths.pop('test').name} is left out: it has no column {columns.mask!r}.")
    named = ", ".join(path.name for path in paths.values())
    return Found(
        root=data,
        samples={part: read_table(path, columns.image, columns.mask) for part, path in paths.items()},
        paths=paths,
        image_column=columns.image,
        mask_column=columns.mask,
        split_note=f"The split is the data set's own: {named}.",
        notes=tuple(notes),
    )


def _from_only_table(data: Path) -> Found | None:
    tables = sorted(data.glob("*.csv"))
    if len(tables) != 1:
        return None
    try:
        columns = find_columns(tables[0])
    except DataError:
        return None  # a CSV beside images/ and masks/ may hold anything
    return _from_table(tables[0], columns)


def _from_folders(data: Path, skip_unpaired: bool) -> Found | None:
    """images/ and masks/, with train/ and val/ above or below them, or without."""
    folders = {part: _named(data, words, directory=True) for part, words in _WORDS.items()}
    inside = {
        part: find_pairs(folder, skip_unpaired=skip_unpaired) for part, folder in folders.items() if folder is not None
    }
    parts = {part: pairs for part, pairs in inside.items() if pairs is not None}
    if "training" in parts:
        first = parts["training"]
        plain = all(p.plain and (p.image_column, p.mask_column) == (first.image_column, first.mask_column)
                    for p in parts.values())  # fmt: skip
        return Found(
            root=data,
            samples={part: pairs.samples for part, pairs in parts.items()},
            paths={part: pairs.root for part, pairs in parts.items()} if plain else None,
            image_column=first.image_column if plain else "image",
            mask_column=first.mask_column if plain else "mask",
            split_note=f"The split is the data set's own: {', '.join(p.root.name for p in parts.values())}.",
            notes=_left_out(*parts.values()),
        )
    pairs = find_pairs(data, skip_unpaired=skip_unpaired)
    if pairs is None:
        return None
    split = _split_by_folder(pairs.image_folder, pairs.samples)
    if split is not None:
        note = f"The split is the data set's own: the folders inside {pairs.image_folder.name}."
        return Found(root=data, samples=split, split_note=note, notes=_left_out(pairs))
    return Found(
        root=data,
        samples={"dataset": pairs.samples},
        paths={"dataset": data} if pairs.plain else None,
        image_column=pairs.image_column if pairs.plain else "image",
        mask_column=pairs.mask_column if pairs.plain else "mask",
        notes=_left_out(pairs),
    )


def _left_out(*found: Pairs) -> tuple[str, ...]:
    count = sum(pairs.unpaired for pairs in found)
    return (f"{count} file(s) without a partner were left out",) if count else ()


def _split_by_folder(images: Path, samples: list[Sample]) -> dict[TableName, list[Sample]] | None:
    parts: dict[TableName, list[Sample]] = {}
    for sample in samples:
        top = sample.image.relative_to(images).parts[0].lower()
        part = PART_WORDS.get(top)
        if part is None:
            return None
        parts.setdefault(part, []).append(sample)
    return {part: parts[part] for part in PARTS if part in parts} if "training" in parts else None


def _named(folder: Path, names: list[str], *, directory: bool = False) -> Path | None:
    """The one entry of a folder that has one of these names, whatever its case."""
    found = sorted(p for p in folder.iterdir() if p.name.lower() in names and p.is_dir() == directory)
    return found[0] if found else None


def _complete(found: Found) -> Found:
    """A data set with a training part gets a validation part: every tenth training sample where it has none."""
    samples = found.samples
    if "dataset" in samples:
        own = {s.part for s in samples["dataset"]} - {None}
        if not own or {"training", "validation"} <= own:
            return found
        samples = {part: [s for s in samples["dataset"] if s.part == part] for part in PARTS if part in own}
        if "training" not in samples:
            raise DataError(f"{found.root}: the column {found.split_column!r} gives no row to training")
    if "validation" in samples:
        return found
    training = samples["training"]
    step = min(HELD_OUT, len(training))
    if step < 2:
        raise DataError(f"{found.root}: expected at least two samples to train and validate on, found {len(training)}")
    held = training[step - 1 :: step]
    rest = [s for i, s in enumerate(training) if (i + 1) % step]
    parts: dict[TableName, list[Sample]] = {"training": rest, "validation": held}
    if "test" in samples:
        parts["test"] = samples["test"]
    note = (
        f"The data set has no validation part: every {step}th of its {len(training)} training samples, {len(held)} "
        "in all, became one. Frames of one video should not be on both sides; edit the tables if they are."
    )
    return replace(
        found,
        samples=parts,
        paths=None,
        image_column="image",
        mask_column="mask",
        split_column=None,
        split_note=note,
    )
