"""segdeploy demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="demo")
@options.output("demo-report", "Folder for the data, the run, the bundle and the report.")
@click.option("--images", type=click.IntRange(min=20), default=300, show_default=True, help="Images to generate.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data; default: as configured.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as trainer.epochs=10.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the data.")
def command(output: Path, images: int, epochs: int | None, overrides: tuple[str, ...], seed: int) -> None:
    """The whole path on a generated data set: train, evaluate, export, verify, benchmark, report.

    Each step is a command that you can run on your own data; it is printed before it runs.
    """
    from segdeploy.demo import run_demo
    from segdeploy.plugin.extras import require

    require("train")
    if epochs is not None:
        overrides = (f"trainer.epochs={epochs}", *overrides)
    run_demo(output, images=images, seed=seed, overrides=overrides)
