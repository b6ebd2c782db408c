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
@click.argument("inputs", nargs=-1, required=True, type=options.PATH)
@options.output("masks", "Folder for the masks.")
@click.option("--overlay", is_flag=True, help="Also write each image blended with its mask.")
@options.backend
@click.option("--precision", default="fp32", show_default=True, help="Which of a bundle's files to run.")
@options.threads
@options.device
def command(
    model: Path,
    inputs: tuple[Path, ...],
    output: Path,
    overlay: bool,
    backend: str | None,
    precision: str,
    threads: int | None,
    device: str,
) -> None:
    """Write the mask of each image: a palette PNG of the image's own size, pixel value = class id.

    MODEL is a run folder, a bundle or an .onnx file; INPUTS are images and folders.
    """
    from segdeploy.bundle import open_model
    from segdeploy.errors import DataError
    from segdeploy.predict import predict
    from segdeploy.runtime.runner import RunnerOptions, open_runner

    opened = open_model(model)
    options_ = RunnerOptions(threads=threads, device=device, precision=precision)
    with open_runner(opened, backend, options_) as runner, progress("predicting") as step:
        result = predict(runner, opened.spec, inputs, output, overlay=overlay, progress=step)
    say(f"{len(result.written)} mask(s) in {output}")
    if result.faults:
        raise DataError(f"{len(result.faults)} image(s) could not be read:\n" + "\n".join(result.faults))
