"""segdeploy evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say


@click.command(name="evaluate")
@options.model
@click.option("--dataset", type=options.PATH, help="Table with images and masks.")
@options.split
@click.option("--data-format", hidden=True)
@options.backend
@options.precision
@click.option("--at", type=click.Choice(["mask", "model"]), default="mask", show_default=True,
              help="Count pixels at each mask's own size, or at the network's.")  # fmt: skip
@options.batch_size
@options.threads
@options.device
@options.host_code
@options.output(None, "Folder for test_statistics.json; default: a run's own folder, else the present one.")
@click.option("--skip-save-eval-stats", "-sses", is_flag=True, hidden=True)
@options.without_effect(
    "--skip-save-unprocessed-output", "--skip-save-predictions", "--skip-collect-predictions",
    "--skip-collect-overall-stats",
)  # fmt: skip
@options.logging_level
def command(
    model: Path,
    dataset: Path | None,
    split: str,
    data_format: str | None,
    backend: str | None,
    precision: str,
    at: str,
    batch_size: int,
    threads: int | None,
    device: str,
    host_code: bool,
    output: Path | None,
    skip_save_eval_stats: bool,
) -> None:
    """Score MODEL (a run folder, a bundle or an .onnx file) on a table: mean IoU, per class, confusion matrix."""
    from segdeploy.arguments import check_data_format
    from segdeploy.bundle import open_model
    from segdeploy.config.load import read_run_config
    from segdeploy.data.select import select_samples
    from segdeploy.files import write_json
    from segdeploy.run_folder import TEST_STATISTICS_FILE, find_run
    from segdeploy.runtime.runner import RunnerOptions, open_runner
    from segdeploy.tables import score_table
    from segdeploy.train.score import score

    check_data_format(data_format, dataset)
    opened, run = open_model(model), find_run(model)
    samples = select_samples(opened.spec, run, read_run_config(model), dataset, split)
    options_ = RunnerOptions(threads=threads, device=device, precision=precision, host_code=host_code)
    with open_runner(opened, backend, options_) as runner, progress("evaluating") as step:
        result = score(
            opened, runner, samples, batch_size=batch_size, at="model" if at == "model" else "mask", progress=step
        )
    say(score_table(result, opened.spec))
    if not skip_save_eval_stats:
        file = (output or run or Path()) / TEST_STATISTICS_FILE
        say(f"statistics: {write_json(file, result.to_dict(opened.spec))}")
