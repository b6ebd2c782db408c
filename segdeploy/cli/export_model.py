"""segdeploy export_model: Ludwig's name and words for an export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.progress import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="export-model")
@options.model
@options.output("exported_model", "Folder for what is written.")
@options.option(
    "-f", "--format", "format_", type=click.Choice(["safetensors", "torch_export", "onnx"]), default="safetensors",
    show_default=True, ludwig=("--export-format",),
    help="A model folder, a program for torch.export.load, or a bundle with an ONNX file.",
)  # fmt: skip
@options.logging_level
def command(model: Path, output: Path, format_: str) -> None:
    """Write MODEL in another format. `segdeploy export` also verifies the ONNX file on real images."""
    from segdeploy.plugin.extras import require

    require("train")
    from segdeploy.export.formats import export_model

    say(f"{format_}: {export_model(model, output, format_)}")
