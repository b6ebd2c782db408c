"""segdeploy train."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segdeploy.cli import options
from segdeploy.progress import duration, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.run_folder import Skip


@click.command(name="train")
@options.option("-c", "--config", type=options.PATH, help="The YAML file.")
@click.option("--config-str", "-cs", hidden=True, help="The YAML itself.")
@click.option("--dataset", type=options.PATH, help="One table, split as the configuration says.")
@click.option("--training-set", type=options.PATH, help="Table to train on.")
@click.option("--validation-set", type=options.PATH, help="Table that picks the best epoch.")
@click.option("--test-set", type=options.PATH, help="Table that the best epoch is scored on, at the end.")
@click.option("--data-format", hidden=True)
@options.output("results", "Folder for runs.")
@click.option("--name", help="The run's folder; _0, _1, ... where it is taken.  [default: experiment_run]")
@click.option("--experiment-name", default="experiment", hidden=True)
@click.option("--model-name", default="run", hidden=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as trainer.epochs=10.")
@click.option("--lenient", is_flag=True, help="Drop unknown keys with a warning, as Ludwig does.")
@click.option("--random-seed", "-rs", type=int, hidden=True)
@options.option(
    "--start-from", type=options.PATH, metavar="MODEL", ludwig=("-mlp", "--model-load-path"),
    help="A run or bundle whose weights are the first ones; without -c its configuration too.",
)  # fmt: skip
@options.option(
    "--resume", type=options.PATH, metavar="RUN", ludwig=("-mrp", "--model-resume-path"),
    help="Go on with a run that stopped.",
)  # fmt: skip
@click.option("--skip-save-model", "-ssm", is_flag=True, hidden=True)
@options.skips
@options.device
@click.option("--backend", "-b", type=click.Choice(["local"]), hidden=True, expose_value=False)
@options.logging_level
def command(
    config: Path | None,
    config_str: str | None,
    dataset: Path | None,
    training_set: Path | None,
    validation_set: Path | None,
    test_set: Path | None,
    data_format: str | None,
    output: Path,
    name: str | None,
    experiment_name: str,
    model_name: str,
    overrides: tuple[str, ...],
    lenient: bool,
    random_seed: int | None,
    start_from: Path | None,
    resume: Path | None,
    skip_save_model: bool,
    skip: Skip,
    device: str,
) -> None:
    """Train a model; a table has image and mask columns, or is a folder with images/ and masks/.

    On several GPUs or machines: torchrun --nproc-per-node 2 -m segdeploy train ...

    Tables may be .csv, .tsv, .json, .jsonl, .parquet, .feather or .xlsx files.
    Without --dataset and --training-set the tables are those of the configuration's `data`.
    """
    from segdeploy.arguments import check_data_format
    from segdeploy.config import choose_config
    from segdeploy.config.load import read_run_config
    from segdeploy.data.table import Tables
    from segdeploy.environment import is_first_process
    from segdeploy.errors import ConfigError
    from segdeploy.plugin.extras import require
    from segdeploy.run_folder import PAGE_FILE, find_model, part_table

    require("train")
    check_data_format(data_format, dataset, training_set, validation_set, test_set)
    tables = Tables(dataset=dataset, training=training_set, validation=validation_set, test=test_set)
    changes = [*overrides, *([] if random_seed is None else [f"trainer.seed={random_seed}"])]
    if resume is not None:
        if config is not None or config_str is not None or changes or start_from is not None:
            raise ConfigError(
                "--resume goes on with the run's own configuration; leave out -c and --set, "
                "or begin anew from its weights with --start-from RUN"
            )
        from segdeploy.train.loop import resume as go_on

        given = any((dataset, training_set, validation_set, test_set))
        known = read_run_config(resume)
        report = _reporter(known.trainer.epochs if known else 0)
        result = go_on(resume, tables=tables if given else None, device=device, skip=skip, on_epoch=report)
    else:
        settings = choose_config(config, config_str, start_from, changes, lenient=lenient)
        from segdeploy.train.loop import train

        with ExitStack() as held:
            away = held.enter_context(tempfile.TemporaryDirectory()) if skip_save_model else None
            result = train(
                settings,
                tables,
                output,
                name=name or f"{experiment_name}_{model_name}",
                device=device,
                start_from=start_from,
                skip=skip,
                model_folder=None if away is None else Path(away),
                on_epoch=_reporter(settings.trainer.epochs),
            )
    if not is_first_process():
        return
    say(f"best validation mean IoU {result.best_mean_iou:.4f} in epoch {result.best_epoch}")
    if result.test_mean_iou is not None:
        say(f"test mean IoU {result.test_mean_iou:.4f}")
    if (result.run / PAGE_FILE).is_file():
        say(f"page: {result.run / PAGE_FILE}")
    say(f"run: {result.run}")
    if find_model(result.run):
        table = part_table(result.run, "validation")
        say(f"now: {shlex.join(['segdeploy', 'export', str(result.run), '--verify', str(table)])}")


def _reporter(epochs: int) -> Callable[[dict[str, Any]], None]:
    """A function that says an epoch's numbers in a line, and how long the others will take."""
    times: list[float] = []

    def report(row: dict[str, Any]) -> None:
        times.append(row["seconds"])
        to_come = epochs - row["epoch"]
        left = f"  {duration(sum(times) / len(times) * to_come)} left" if to_come else ""
        checked = row["validation_loss"]
        say(
            f"epoch {row['epoch']:>3}/{epochs}  loss {row['training_loss']:.4f}  "
            f"val loss {'-' if checked is None else f'{checked:.4f}'}  val mIoU {row['validation_mean_iou']:.4f}  "
            f"lr {row['learning_rate']:.1e}  {row['training_images_per_second']:.1f} images/s  "
            f"{row['seconds']:.0f} s{left}"
        )

    return report
