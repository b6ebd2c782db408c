"""segdeploy train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from segdeploy.cli import options
from segdeploy.progress import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="train")
@click.option("-c", "--config", type=options.PATH, help="The YAML file.")
@click.option("--dataset", type=options.PATH, help="One table, split as the configuration says.")
@click.option("--training-set", type=options.PATH, help="Table to train on.")
@click.option("--validation-set", type=options.PATH, help="Table that picks the best epoch.")
@click.option("--test-set", type=options.PATH, help="Table that is checked now and scored later.")
@options.output("results", "Folder for runs.")
@click.option(
    "--name", default="experiment_run", show_default=True, help="The run's folder; _0, _1, ... where it is taken."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as trainer.epochs=10.")
@click.option("--resume", type=options.PATH, metavar="RUN", help="Go on with a run that stopped.")
@options.device
def command(
    config: Path | None,
    dataset: Path | None,
    training_set: Path | None,
    validation_set: Path | None,
    test_set: Path | None,
    output: Path,
    name: str,
    overrides: tuple[str, ...],
    resume: Path | None,
    device: str,
) -> None:
    """Train a model; a table is a CSV with image and mask columns, or a folder with images/ and masks/.

    Without --dataset and --training-set the tables are those of the configuration's `data`.
    """
    from segdeploy.config import load_config
    from segdeploy.data.table import Tables, configured_tables
    from segdeploy.errors import ConfigError
    from segdeploy.plugin.extras import require

    require("train")
    tables = Tables(dataset=dataset, training=training_set, validation=validation_set, test=test_set)
    if resume is not None:
        if config is not None or overrides:
            raise ConfigError("--resume goes on with the run's own configuration; leave out -c and --set")
        from segdeploy.train.loop import resume as go_on

        given = any((dataset, training_set, validation_set, test_set))
        result = go_on(resume, tables=tables if given else None, device=device, on_epoch=_report)
    else:
        if config is None:
            raise ConfigError("expected -c CONFIG, or --resume RUN")
        settings = load_config(config, overrides)
        tables = configured_tables(settings.data, config.parent, tables)
        from segdeploy.train.loop import train

        result = train(settings, tables, output, name=name, device=device, on_epoch=_report)
    say(f"best validation mean IoU {result.best_mean_iou:.4f} in epoch {result.best_epoch}")
    say(f"run: {result.run}")


def _report(row: dict[str, Any]) -> None:
    say(
        f"epoch {row['epoch']:>3}  loss {row['training_loss']:.4f}  val mIoU {row['validation_mean_iou']:.4f}  "
        f"{row['training_images_per_second']:.1f} images/s  {row['seconds']:.0f} s"
    )
