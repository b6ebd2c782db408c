"""segdeploy benchmark."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.cli.gate_options import judged, tell
from segdeploy.progress import say, stages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.benchmark.judge import Judge


@click.command(name="benchmark")
@options.model
@click.option("--dataset", type=options.PATH, required=True, help="Table with images and masks.")
@click.option("--backends", help="Comma-separated names; default: all that the model has a file for.")
@click.option("--batches", help="Comma-separated batch sizes.  [default: 1,4]")
@click.option("--threads", help="Comma-separated CPU thread counts.  [default: all cores of this process]")
@click.option("--sizes", help="Comma-separated WIDTHxHEIGHT, for models of free size.  [default: the model's own]")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds in which every row takes its turn.  [default: 30]")
@click.option("--seconds", type=click.FloatRange(min=0), help="The rounds go on for this long.  [default: 10]")
@click.option(
    "--compile/--no-compile", "compile_", default=True, show_default=True, help="Whether to measure torch.compile."
)
@click.option("--at", type=click.Choice(["mask", "model"]), default="mask", show_default=True,
              help="Count pixels at each mask's own size, or at the network's.")  # fmt: skip
@click.option("--pictures", type=click.IntRange(min=0), default=4, show_default=True, help="Examples in the report.")
@options.device
@judged
@options.output("report", "Folder for report.json, report.md and report.html.")
def command(
    model: Path,
    dataset: Path,
    backends: str | None,
    batches: str | None,
    threads: str | None,
    sizes: str | None,
    rounds: int | None,
    seconds: float | None,
    compile_: bool,
    at: str,
    pictures: int,
    device: str,
    judge_with: Callable[..., Judge],
    output: Path,
) -> None:
    """Accuracy and speed of every backend that can run MODEL, measured side by side, as one page."""
    from segdeploy.benchmark.gates import selectable
    from segdeploy.benchmark.report import write_report
    from segdeploy.benchmark.run import run_benchmark
    from segdeploy.benchmark.settings import benchmark_settings
    from segdeploy.benchmark.verdict import verdict
    from segdeploy.bundle import open_model
    from segdeploy.tables import benchmark_table

    opened = open_model(model)
    changes = {"batches": batches, "threads": threads, "sizes": sizes, "rounds": rounds, "seconds": seconds}
    settings = benchmark_settings(opened, changes)
    names = [b.strip() for b in backends.split(",")] if backends else None
    judge = judge_with(settings.gates, selectable(opened, settings, names))
    with stages() as step:
        result = run_benchmark(
            opened,
            dataset,
            settings=settings,
            backends=names,
            compile=compile_,
            device=device,
            at="model" if at == "model" else "mask",
            pictures=pictures,
            command=shlex.join(["segdeploy", *sys.argv[1:]]),
            progress=step,
        )
    result = judge.judge(result)
    say(benchmark_table(result))
    for caution in verdict(result).cautions:
        say(f"before you quote this: {caution}")
    say(f"report: {write_report(result, output)}")
    tell(judge, result)
