"""Which samples an evaluation or a prediction is about: a table, one part of it, or a part of the run's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from segdeploy.data.table import read_table
from segdeploy.errors import DataError
from segdeploy.run_folder import part_table

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.rows import Table
    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec

Selection = Literal["full", "training", "validation", "test"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)


def select_samples(
    spec: ModelSpec,
    run: Path | None,
    config: RunConfig | None,
    dataset: Table | None = None,
    split: str = "full",
    *,
    masks: bool = True,
) -> list[Sample]:
    """The samples of a table, or of one part.

    Args:
        spec: names the columns.
        run: the run folder, whose own parts serve where there is no `dataset`; None: there is none.
        config: the run's configuration, which names the split column.
        dataset: a table, see `read_table`.
        split: "full" for all rows; else the rows that the table's split column gives to that part, or, without a
            `dataset`, the part as the run was trained with.
        masks: whether the masks are needed too.

    Raises:
        DataError: see `read_table`; no such part; or neither a table nor a part.
    """
    if split not in SELECTIONS:
        raise DataError(f"split: expected one of {', '.join(SELECTIONS)}, got {split!r}")
    columns = (spec.image_column, spec.mask_column if masks else None)
    if dataset is None:
        if split == "full":
            raise DataError("expected a dataset, or a split (training, validation, test) of the run's own data")
        if run is None:
            raise DataError(f"the model knows no {split} part of its own, for it is in no run folder; give a dataset")
        table = part_table(run, split)
        if not table.is_file() or len(table.read_text().splitlines()) < 2:
            raise DataError(f"{run}: the run has no {split} part; give a dataset")
        return read_table(table, *columns)
    if split == "full":
        return read_table(dataset, *columns, None)
    known = config.preprocessing.split if config else None
    column = (known.column if known and known.type == "fixed" else None) or "split"
    chosen = [s for s in read_table(dataset, *columns, column) if s.part == split]
    if not chosen:
        raise DataError(
            f"no row of the dataset has {split!r} in {column!r}; for the run's own {split} part leave the dataset out"
        )
    return chosen
