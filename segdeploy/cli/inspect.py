"""segdeploy inspect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="inspect")
@click.argument("paths", nargs=-1, type=options.PATH, metavar="[PATH]...")
@click.option("-c", "--config", type=options.PATH, help="A YAML file: classes, columns, split, findings to allow.")
@click.option("--classes", type=options.PATH, help="A YAML file with the keys of a mask's preprocessing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def command(paths: tuple[Path, ...], config: Path | None, classes: Path | None, as_json: bool) -> int:
    """Say what a data set holds and what is wrong with it, or what a run, a bundle or an .onnx file is.

    PATH is a table, a folder with images/ and masks/, or a model; several tables are the parts that their names say.
    Without PATH the tables are those of the configuration. Exit code 2 where the data have errors.
    """
    from segdeploy.bundle import BUNDLE_FILE, open_model
    from segdeploy.config import load_config
    from segdeploy.errors import ConfigError
    from segdeploy.inspection import data_text, inspect_data, inspect_model, model_text, read_classes, read_tables
    from segdeploy.run_folder import find_model

    if not paths and config is None:
        raise ConfigError("expected a table, a folder, a model, or -c CONFIG whose `data` names the tables")
    path = paths[0] if len(paths) == 1 else None
    if path is not None and (path.suffix == ".onnx" or (path / BUNDLE_FILE).is_file() or find_model(path)):
        about = inspect_model(open_model(path))
        say(json.dumps(about, indent=2) if as_json else model_text(about))
        return 0
    if config is not None and classes is not None:
        raise ConfigError("expected either --config or --classes, got both")
    settings = load_config(config) if config else None
    mask = settings.mask.preprocessing if settings else read_classes(classes) if classes else None
    with progress("looking at images and masks") as step:
        found = inspect_data(read_tables(paths, settings), mask, settings.preprocessing.allow if settings else (), step)
    say(json.dumps(found, indent=2) if as_json else data_text(found))
    return 2 if any(f["severity"] == "error" for f in found["findings"]) else 0
