"""segdeploy import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from segdeploy.cli import options
from segdeploy.progress import say

if TYPE_CHECKING:
    from pathlib import Path


def _triple(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        red, green, blue = (float(word) for word in value.split(","))
    except ValueError as e:
        raise click.BadParameter("expected three numbers with commas between", param=parameter) from e
    return red, green, blue


@click.command(name="import")
@click.argument("source", type=options.PATH, required=False)
@options.output("imported_run", "The run's folder.")
@click.option("--classes", type=options.PATH, help="A YAML file with the keys of a mask's preprocessing.")
@click.option("--height", type=click.IntRange(16, 16384), help="Height of the network's input, pixels.")
@click.option("--width", type=click.IntRange(16, 16384), help="Width of the network's input, pixels.")
@click.option("--resize", type=click.Choice(["stretch", "letterbox"]), help="How images are brought to that size.")
@click.option("--mean", metavar="R,G,B", callback=_triple, help="Mean per channel, on the scale 0..1.")
@click.option("--std", metavar="R,G,B", callback=_triple, help="Standard deviation per channel, on the scale 0..1.")
@click.option(
    "--factory", metavar="PACKAGE.MODULE:FUNCTION", help="Instead of SOURCE: a function that makes an nn.Module."
)
@click.option("--weights", type=options.PATH, help="With --factory: its state dict, .safetensors or torch's own.")
@click.option("--align-corners", is_flag=True, help="With --factory: how logits are brought to the image's size.")
def command(
    source: Path | None,
    output: Path,
    factory: str | None,
    weights: Path | None,
    align_corners: bool,
    **declared: Any,
) -> None:
    """Turn a model that was trained elsewhere into a run, which can be evaluated, exported and trained further.

    SOURCE is a folder of save_pretrained: a SegFormer of transformers, or a Unet, FPN, Segformer or DeepLabV3Plus of
    segmentation_models.pytorch. Any other network comes in by --factory, with --classes, --height and --width.
    """
    from segdeploy.errors import ConfigError
    from segdeploy.plugin.extras import require

    require("train")
    if (source is None) == (factory is None):
        raise ConfigError(
            "expected a SOURCE folder or --factory, got both" if source else "expected a SOURCE folder or --factory"
        )
    if factory is None and (weights is not None or align_corners):
        raise ConfigError("--weights and --align-corners go with --factory; a SOURCE folder holds its own weights")
    from segdeploy.importing.run import Declared, import_factory, import_folder

    if source is not None:
        result = import_folder(source, output, Declared(**declared))
    else:
        assert factory is not None
        result = import_factory(factory, weights, output, Declared(**declared), align_corners=align_corners)
    for note in result.notes:
        say(f"note: {note}")
    if (found := result.comparison) is not None:
        say(
            f"compared with {found.library} {found.version}: the logits differ by {found.difference:.1e} at most "
            f"(the largest is {found.largest:.3g})"
        )
    if factory is not None:
        say(f"to open the run: export SEGDEPLOY_FACTORIES={factory}")
    say(f"run: {result.run}")
