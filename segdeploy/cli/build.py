"""segdeploy build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.cli.engine_options import engine_options
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.export.build import Changes


@click.command(name="build")
@click.argument("bundle", type=options.PATH)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Which of the bundle's graphs to build; default: the engine's own, else the fewest bits that the bundle has.",
)
@engine_options
@click.option(
    "--verify", "verify_table", type=options.PATH, help="Table with masks on which it is compared with onnxruntime."
)
@click.option("--force", is_flag=True, help="Build although the engine that is there fits.")
def command(
    bundle: Path,
    precision: str | None,
    changes: Callable[[str | None], Changes],
    verify_table: Path | None,
    force: bool,
) -> None:
    """Build or rebuild a bundle's TensorRT engine for this machine, and compare it with onnxruntime."""
    from segdeploy.export.build import build

    with progress("building the engine") as step:
        made = build(bundle, changes(precision), force=force, verify_table=verify_table, progress=step)
    for reason in made.reasons:
        say(f"built: {reason}")
    if not made.reasons:
        say("the engine fits this machine; --force builds it again")
    say(f"engine: {bundle / 'model.engine'}: {made.lock.precision}, {made.lock.status} ({made.lock.built_by})")
