"""segdeploy predict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="predict")
@options.model
@click.argument("inputs", nargs=-1, type=options.PATH)
@click.option("--dataset", type=options.PATH, help="Table whose images are predicted, instead of INPUTS.")
@options.split
@click.option("--data-format", hidden=True)
@options.output("masks", "Folder for the masks.")
@click.option("--overlay", is_flag=True, help="Also write each image blended with its mask.")
@options.backend
@options.precision
@options.threads
@options.device
@options.host_code
@click.option("--batch-size", "-bs", type=int, hidden=True, expose_value=False)
@options.without_effect("--skip-save-unprocessed-output")
@options.logging_level
def command(
    model: Path,
    inputs: tuple[Path, ...],
    dataset: Path | None,
    split: str,
    data_format: str | None,
    output: Path,
    overlay: bool,
    backend: str | None,
    precision: str,
    threads: int | None,
    device: str,
    host_code: bool,
) -> None:
    """Write the mask of each image: a palette PNG of the image's own size, pixel value = class id.

    MODEL is a run folder, a bundle or an .onnx file; INPUTS are images and folders. A table's masks are listed in
    NAME_predictions.csv beside them.
    """
    from segdeploy.arguments import check_data_format
    from segdeploy.bundle import open_model
    from segdeploy.errors import DataError
    from segdeploy.predict import common_folder, predict, write_index
    from segdeploy.runtime.runner import RunnerOptions, open_runner

    check_data_format(data_format, dataset)
    opened, root = open_model(model), None
    if not inputs:
        if dataset is None and split == "full":
            raise click.UsageError("expected INPUTS, --dataset or --split")
        from segdeploy.config.load import read_run_config
        from segdeploy.data.select import select_samples
        from segdeploy.run_folder import find_run

        samples = select_samples(opened.spec, find_run(model), read_run_config(model), dataset, split, masks=False)
        inputs = tuple(s.image for s in samples)
        root = common_folder(inputs)
    elif dataset is not None or split != "full":
        raise click.UsageError("expected either INPUTS or a table, got both")
    options_ = RunnerOptions(threads=threads, device=device, precision=precision, host_code=host_code)
    with open_runner(opened, backend, options_) as runner, progress("predicting") as step:
        result = predict(runner, opened.spec, inputs, output, overlay=overlay, root=root, progress=step)
    say(f"{len(result.written)} mask(s) in {output}")
    if root is not None:
        say(f"list: {write_index(output, opened.spec, result.written)}")
    if result.faults:
        raise DataError(f"{len(result.faults)} image(s) could not be read:\n" + "\n".join(result.faults))
