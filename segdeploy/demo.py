"""The demo: the commands of README on generated data, each in its own process, as a user would run them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from importlib import resources
from typing import TYPE_CHECKING

from segdeploy.data.demo import generate
from segdeploy.errors import SegdeployError
from segdeploy.files import write_text
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARKER = ".segdeploy-demo"
_CHILDREN = {MARKER, "demo.yaml", "data", "runs", "bundle", "masks", "report"}


def run_demo(output: Path, *, images: int = 300, seed: int = 0, overrides: Sequence[str] = ()) -> Path:
    """Generate data into `output/data`, then train, evaluate, export, verify, benchmark.

    Args:
        output: the demo's folder; an earlier demo there is replaced.
        images: how many pictures are generated.
        seed: of the pictures.
        overrides: changes of the configuration, as `segdeploy train --set` takes them.

    Returns:
        The path of report.html.

    Raises:
        SegdeployError: `output` is taken by something else, or a step failed; the step has said why.
    """
    _clear(output)
    write_text(output / MARKER, "made by segdeploy demo; a later demo replaces it\n")
    started = time.monotonic()
    say(f"generating {images} images in {output / 'data'}")
    with progress("generating") as step:
        table = generate(output / "data", count=images, seed=seed, progress=step)
    config = write_text(output / "demo.yaml", resources.files("segdeploy").joinpath("demo.yaml").read_text())
    validation, test = _part_tables(table)
    run, bundle, report = output / "runs" / "demo", output / "bundle", output / "report"
    changes = [word for override in overrides for word in ("--set", override)]
    _step("train", "-c", config, "--dataset", table, "-o", run.parent, "--name", run.name, *changes)
    _step("evaluate", run, "--dataset", test)
    _step("export", run, "-o", bundle, "--verify", validation)
    _step("predict", bundle, table.parent / "images", "-o", output / "masks", "--overlay")
    _step("benchmark", bundle, "--dataset", test, "-o", report)
    say(f"\ndone in {time.monotonic() - started:.0f} s; open {(report / 'report.html').resolve()}")
    return report / "report.html"


def _clear(output: Path) -> None:
    """An earlier demo is replaced; anything else is left alone."""
    if not output.exists():
        return
    if not output.is_dir():
        raise SegdeployError(f"{output}: is a file; choose another -o")
    found = {p.name for p in output.iterdir()}
    if found and (MARKER not in found or found - _CHILDREN):
        raise SegdeployError(f"{output}: is there already and holds more than a demo; choose another -o")
    shutil.rmtree(output)


def _part_tables(table: Path) -> tuple[Path, Path]:
    """The validation and test rows of the table as tables of their own, for the commands that take a whole one."""
    head, *rows = table.read_text().splitlines()
    written = []
    for part in ("validation", "test"):
        chosen = [row for row in rows if row.rsplit(",", 1)[1] == part]
        written.append(write_text(table.with_name(f"{part}.csv"), "\n".join([head, *chosen]) + "\n"))
    return written[0], written[1]


def _step(*words: str | Path) -> None:
    line = [str(w) for w in words]
    say(f"\n$ {shlex.join(['segdeploy', *line])}")
    done = subprocess.run([sys.executable, "-m", "segdeploy", *line], env=dict(os.environ), check=False)
    if done.returncode:
        raise SegdeployError(f"demo: the step {line[0]!r} ended with exit code {done.returncode}; its message is above")
