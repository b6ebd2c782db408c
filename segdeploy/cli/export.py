"""segdeploy export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="export")
@click.argument("run", type=options.PATH)
@options.output(None, "The bundle's folder; default: RUN/bundle.")
@click.option(
    "--verify", "verify_table", type=options.PATH, help="Table with masks on which ONNX is compared with torch."
)
@click.option(
    "--max-miou-drop", type=float, help="Largest loss of mean IoU, 0.01 = one point; default: the run's configuration."
)
@click.option("--min-agreement", type=float, help="Smallest share of equal pixels; default: the run's configuration.")
@click.option(
    "--dynamic",
    type=click.Choice(["batch", "batch,height,width", "height,width"]),
    default="batch",
    show_default=True,
    help="Sides that the ONNX file leaves free; the batch always is. An engine keeps the model's height and width.",
)
@click.option("--trt", is_flag=True, help="Also build a TensorRT engine; for RTX GPUs that needs no GPU.")
def command(
    run: Path,
    output: Path | None,
    verify_table: Path | None,
    max_miou_drop: float | None,
    min_agreement: float | None,
    dynamic: str,
    trt: bool,
) -> None:
    """Turn a run into a bundle: ONNX with uint8 in and uint8 out, compared with torch on real images."""
    from segdeploy.plugin.extras import require

    require("train")
    from segdeploy.export.run import export_limits, export_run

    output = output or run / "bundle"
    changes: dict[str, Any] = {"max_miou_drop": max_miou_drop, "min_agreement": min_agreement}
    with progress("verifying") as step:
        result = export_run(
            run,
            output,
            verify_table=verify_table,
            limits=export_limits(run, changes),
            dynamic_size="height" in dynamic,
            progress=step,
        )
    for record in result.parity:
        say(
            f"batch {record.batch_size}: {record.agreement:.4%} of the pixels agree with torch, "
            f"mIoU {record.reference_miou:.5f} -> {record.miou:.5f} on {record.images} images"
        )
    if result.elsewhere is not None:
        other = result.elsewhere
        say(f"at {other.width}x{other.height}: {other.agreement:.4%} of the pixels agree on {other.images} images")
    if not result.parity:
        say("not verified: give --verify TABLE to compare with torch on real images")
    if trt:
        from segdeploy.export.build import add_engine

        with progress("building the engine") as step:
            made = add_engine(result.bundle, progress=step)
        engine = made.find("engine")
        assert engine is not None
        built_by = f"{engine.about['flavour']} {engine.about['version']}"
        say(f"engine: {made.path / engine.file}: {engine.about['status']} ({built_by})")
    say(f"bundle: {output}")
