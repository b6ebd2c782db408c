"""segdeploy export."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.cli.engine_options import engine_options
from segdeploy.progress import progress, say, stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.export.build import Changes


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
    "--precision",
    callback=options.words("fp32", "fp16", "int8"),
    metavar="fp32,fp16,int8",
    help="Graphs to write; fp32 always is. Default: the run's configuration, with --trt fp16 too.",
)
@click.option(
    "--calibrate",
    "calibration_table",
    type=options.PATH,
    help="Table of images on which FP16's and INT8's ranges are measured; default: the run's training images.",
)
@click.option(
    "--dynamic",
    type=click.Choice(["batch", "batch,height,width", "height,width"]),
    default="batch",
    show_default=True,
    help="Sides that the ONNX file leaves free; the batch always is. "
    "An engine keeps the model's sides but where --height and --width say more.",
)
@click.option("--trt", is_flag=True, help="Also build a TensorRT engine; that of TensorRT for RTX needs no GPU.")
@engine_options
def command(
    run: Path,
    output: Path | None,
    verify_table: Path | None,
    max_miou_drop: float | None,
    min_agreement: float | None,
    precision: tuple[str, ...] | None,
    calibration_table: Path | None,
    dynamic: str,
    trt: bool,
    changes: Callable[[str | None], Changes],
) -> None:
    """Turn a run into a bundle: ONNX with uint8 in and uint8 out, compared with torch on real images."""
    from segdeploy.plugin.extras import require

    require("train")
    from segdeploy.bundle import open_model, read_bundle_file
    from segdeploy.data.split import written_parts
    from segdeploy.export.build import Changes, add_engine, check_first, engine_target, first_options, lightest
    from segdeploy.export.run import export_run, export_settings
    from segdeploy.run_folder import SPLITS_FOLDER, find_run
    from segdeploy.runtime.engine_lock import LOCK_FILE, read_lock

    output = output or run / "bundle"
    if not trt and changes(None) != Changes():
        raise click.UsageError("options of an engine need --trt")
    if trt:
        check_first(changes(None), open_model(run).spec, free_size="height" in dynamic)
    given = {"max_miou_drop": max_miou_drop, "min_agreement": min_agreement, "precisions": precision}
    settings = export_settings(run, given)
    if trt and precision is None and "fp16" not in settings.precisions:
        settings = settings.model_copy(update={"precisions": (*settings.precisions, "fp16")})
    before = read_bundle_file(output)
    with stages() as step:
        result = export_run(
            run,
            output,
            settings=settings,
            verify_table=verify_table,
            calibration_table=calibration_table,
            dynamic_size="height" in dynamic,
            engine_for=engine_target(changes(None).flavour) if trt else None,
            progress=step,
        )
    for record in result.parity:
        say(
            f"{record.name}: {record.agreement:.4%} of the pixels agree with torch, "
            f"mIoU {record.reference_miou:.5f} -> {record.miou:.5f} on {record.images} images"
        )
    for file, other in result.elsewhere.items():
        share = f"{other.agreement:.4%} of the pixels agree on {other.images} images"
        say(f"{file} at {other.width}x{other.height}: {share}")
    if not result.parity:
        say("not verified: give --verify TABLE to compare with torch on real images")
    if trt:
        wanted = changes(lightest(result.bundle))
        with progress("building the engine") as bar:
            made = add_engine(result.bundle, wanted.precision or "fp32", first_options(wanted), bar)
        lock = read_lock(made.path / LOCK_FILE)
        say(f"engine: {made.path / 'model.engine'}: {lock.precision}, {lock.status} ({lock.built_by})")
    if before is not None:
        held = ", ".join(dict.fromkeys(a.precision for a in before.artifacts if a.kind == "onnx"))
        say(f"replaced: {output} held {held}, {'verified' if before.verification else 'not verified'}")
    say(f"bundle: {output}")
    written = written_parts((find_run(run) or run) / SPLITS_FOLDER)
    table = written.test or written.validation
    if isinstance(table, Path) and table.is_file():
        say(f"now: {shlex.join(['segdeploy', 'benchmark', str(output), '--dataset', str(table)])}")
