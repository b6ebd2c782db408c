"""segdeploy evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say


@click.command(name="evaluate")
@options.model
@click.option("--dataset", type=options.PATH, required=True, help="Table with images and masks.")
@options.backend
@click.option("--precision", default="fp32", show_default=True, help="Which of a bundle's files to run.")
@click.option("--at", type=click.Choice(["mask", "model"]), default="mask", show_default=True,
              help="Count pixels at each mask's own size, or at the network's.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images per call.")
@options.threads
@options.device
@options.output(None, "Folder for eval_stats.json; default: a run's own folder, else the present one.")
def command(
    model: Path,
    dataset: Path,
    backend: str | None,
    precision: str,
    at: str,
    batch_size: int,
    threads: int | None,
    device: str,
    output: Path | None,
) -> None:
    """Score MODEL (a run folder, a bundle or an .onnx file) on a table: mean IoU, per class, confusion matrix."""
    from segdeploy.bundle import BUNDLE_FILE, open_model
    from segdeploy.data.table import read_table
    from segdeploy.evaluate import evaluate
    from segdeploy.files import write_json
    from segdeploy.runtime.runner import RunnerOptions, open_runner
    from segdeploy.tables import score_table

    opened = open_model(model)
    samples = read_table(dataset, opened.spec.image_column, opened.spec.mask_column)
    options_ = RunnerOptions(threads=threads, device=device, precision=precision)
    with open_runner(opened, backend, options_) as runner, progress("evaluating") as step:
        result = evaluate(
            runner, samples, opened.spec, batch_size=batch_size, at="model" if at == "model" else "mask", progress=step
        )
    say(score_table(result, opened.spec))
    is_run = model.is_dir() and not (model / BUNDLE_FILE).exists()
    folder = output or (model if is_run else Path())
    say(f"statistics: {write_json(folder / 'eval_stats.json', result.to_dict(opened.spec))}")
