"""From a data set's path to a configuration on disk."""

from __future__ import annotations

import csv
import io
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.config.load import parse_config
from segdeploy.errors import DataError, SegdeployError
from segdeploy.files import write_text
from segdeploy.init.choose import REPOSITORIES, choose
from segdeploy.init.find import Found, TableName, find
from segdeploy.init.look import look
from segdeploy.init.machine import this_machine
from segdeploy.init.names import find_names
from segdeploy.init.settle import settle, settle_known
from segdeploy.init.text import config_text
from segdeploy.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.data.table import Sample
    from segdeploy.init.machine import Machine

LOOKED_AT = 1000
"""Of a known data set, whose classes are known, so many masks are counted."""
_KEYS: dict[TableName, str] = {
    "dataset": "dataset",
    "training": "training_set",
    "validation": "validation_set",
    "test": "test_set",
}
_FILES: dict[TableName, str] = {"dataset": "data", "training": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Written:
    """The configuration, the tables beside it, the command that trains, and what the user should know."""

    config: Path
    tables: tuple[Path, ...]
    command: str
    warnings: tuple[str, ...]
    errors: tuple[str, ...]
    """Of samples that `train` will refuse, one line each."""


def write_config(
    data: Path,
    output: Path,
    *,
    layout: str | None = None,
    skip_unpaired: bool = False,
    force: bool = False,
    machine: Machine | None = None,
) -> Written:
    """Look at a data set and write a configuration that trains on it.

    Args:
        data: a folder or a CSV file; nothing is written into the folder.
        output: the YAML file. Tables, where the data set has none, go to `<stem>_tables` beside it.
        layout: the data set's form, see `segdeploy.data.layouts`; None: whatever is found.
        skip_unpaired: leave out files that have no partner.
        force: replace `output` and its tables.
        machine: what the model will be trained on; None: this machine.

    Raises:
        SegdeployError: `output` is there already, or lies in the data folder.
        DataError: the data set cannot be used as it is.
    """
    _check_output(data, output, force)
    found = find(data, layout, skip_unpaired=skip_unpaired)
    folder = output.with_name(f"{output.stem}_tables")
    if found.paths is None and folder.exists() and not force:
        raise SegdeployError(f"{folder}: is there already; give --force to write into it, or another -o")
    samples = found.all
    if found.known is not None:
        step = -(-len(samples) // LOOKED_AT)
        samples = samples[::step]
    with progress("looking at masks") as step_done:
        facts = look(samples, step_done)
    if found.known is not None:
        settled = settle_known(facts, found.known, found.title or "")
    else:
        settled = settle(facts, find_names(found.root), str(data))
    split = "dataset" in found.samples and not found.split_column
    count = len(found.training)
    if split and count < 2:
        raise DataError(f"{data}: expected at least two samples to train and validate on, found {count}")
    plan = choose(facts, settled, count, split, machine or this_machine(REPOSITORIES))
    tables = found.paths or {name: folder / f"{_FILES[name]}.csv" for name in found.samples}
    command = shlex.join(["segdeploy", "train", "-c", output.as_posix()])
    keys = {_KEYS[name]: _relative(path, output.parent) for name, path in tables.items()}
    text = config_text(found, facts, settled, plan, tables=keys, command=command)
    parse_config(text, str(output))
    if found.paths is None:
        for name, path in tables.items():
            write_text(path, _table(found, found.samples[name], folder))
    write_text(output, text)
    return Written(
        config=output,
        tables=() if found.paths else tuple(tables.values()),
        command=command,
        warnings=(*found.notes, *settled.warnings),
        errors=facts.errors,
    )


def _check_output(data: Path, output: Path, force: bool) -> None:
    if data.is_dir() and output.resolve().is_relative_to(data.resolve()):
        raise SegdeployError(f"{output}: lies in the data folder, which stays as it is; give another -o")
    if output.is_dir():
        raise SegdeployError(f"{output}: is a folder; give a file, such as -o {output / 'config.yaml'}")
    if output.exists() and not force:
        raise SegdeployError(f"{output}: is there already; give --force to replace it, or another -o")


def _relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`; absolute where it is on another drive."""
    try:
        return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _table(found: Found, samples: Sequence[Sample], folder: Path) -> str:
    """A CSV whose paths are relative to `folder`; links inside the data set are kept as they are."""
    root = Path(_relative(found.root, folder))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "mask"])
    for sample in samples:
        files = (sample.image, sample.mask)
        writer.writerow([(root / f.relative_to(found.root)).as_posix() for f in files if f is not None])
    return text.getvalue()
