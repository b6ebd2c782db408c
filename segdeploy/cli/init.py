"""segdeploy init."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.progress import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="init")
@click.argument("data", type=options.PATH)
@options.output("config.yaml", "The YAML file to write.")
@click.option("--layout", metavar="NAME", help="pets, cityscapes, voc, ade20k or camvid; default: found by looking.")
@click.option("--skip-unpaired", is_flag=True, help="Leave out images without a mask and masks without an image.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def command(data: Path, output: Path, layout: str | None, skip_unpaired: bool, force: bool) -> None:
    """Look at DATA and write a commented configuration that trains on it.

    DATA is a table (such as CSV, TSV, JSON or Parquet) with a column of images and one of masks, a folder with
    images/ and masks/ (also inside train/ and val/) or with train.csv and val.csv, or a known public data set. Nothing
    is written into it.
    """
    from segdeploy.data.findings import first_lines
    from segdeploy.init.run import write_config
    from segdeploy.plugin.extras import require

    require("train")
    written = write_config(data, output, layout=layout, skip_unpaired=skip_unpaired, force=force)
    for warning in written.warnings:
        say(f"note: {warning}")
    for table in written.tables:
        say(f"table: {table}")
    say(f"config: {written.config}")
    if written.errors:
        say(first_lines(f"{len(written.errors)} file(s) that train refuses:", written.errors, 20))
        say(f"now: correct them, then {written.command}")
    else:
        say(f"now: {written.command}")
