"""segdeploy build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="build")
@click.argument("bundle", type=options.PATH)
@click.option("--precision", help="Which of the bundle's graphs to build; default: the engine's own, or fp32.")
@click.option(
    "--trt-flavour",
    type=click.Choice(["tensorrt", "rtx"]),
    help="TensorRT, or TensorRT for RTX; default: TensorRT where it and a GPU are, else that for RTX.",
)
@click.option(
    "--compute-capability",
    metavar="sm86,sm120",
    help="GPUs that an engine of TensorRT for RTX is for, in one file; default: all from 8.0 on.",
)
@click.option(
    "--batch",
    multiple=True,
    metavar="MIN,OPT,MAX",
    help="Images per call: least, tuned for, most. Several times: a profile each. Default: 1,1,8.",
)
@click.option("--height", metavar="MIN,OPT,MAX", help="Where the graph leaves it free; default: the model's.")
@click.option("--width", metavar="MIN,OPT,MAX", help="Where the graph leaves it free; default: the model's.")
@click.option(
    "--workspace", type=click.IntRange(min=1), metavar="MIB", help="Limit of memory for kernels; default: all."
)
@click.option(
    "--optimization-level", type=click.IntRange(0, 5), help="How long to look for faster kernels; default: 3."
)
@click.option("--version-compatible/--no-version-compatible", default=None, help="Also run on later TensorRT; slower.")
@click.option(
    "--hardware-compatible",
    type=click.Choice(["none", "ampere_plus", "same_compute_capability"]),
    help="Also run on other GPUs; slower.",
)
@click.option(
    "--verify", "verify_table", type=options.PATH, help="Table with masks on which it is compared with onnxruntime."
)
@click.option("--force", is_flag=True, help="Build although the engine that is there fits.")
def command(
    bundle: Path,
    precision: str | None,
    trt_flavour: str | None,
    compute_capability: str | None,
    batch: tuple[str, ...],
    height: str | None,
    width: str | None,
    workspace: int | None,
    optimization_level: int | None,
    version_compatible: bool | None,
    hardware_compatible: str | None,
    verify_table: Path | None,
    force: bool,
) -> None:
    """Build or rebuild a bundle's TensorRT engine for this machine, and compare it with onnxruntime."""
    from segdeploy.export.build import Changes, build
    from segdeploy.export.engine_options import parse_range

    changes = Changes(
        precision=precision,
        flavour=trt_flavour,
        batch=tuple(parse_range(text, "--batch") for text in batch),
        height=parse_range(height, "--height") if height else None,
        width=parse_range(width, "--width") if width else None,
        workspace=workspace * 2**20 if workspace else None,
        optimization_level=optimization_level,
        compute_capabilities=tuple(compute_capability.lower().split(",")) if compute_capability else (),
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
    )
    with progress("building the engine") as step:
        made = build(bundle, changes, force=force, verify_table=verify_table, progress=step)
    for reason in made.reasons:
        say(f"built: {reason}")
    if not made.reasons:
        say("the engine fits this machine; --force builds it again")
    say(f"engine: {bundle / 'model.engine'}: {made.lock.status} ({made.lock.flavour} {made.lock.version})")
