"""segdeploy gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.cli.gate_options import judged, tell
from segdeploy.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.benchmark.judge import Judge


def _list_metrics(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from segdeploy.config.gate_metrics import metrics_table
        from segdeploy.tables import text_table

        say(text_table(["metric", "unit", "limit", "meaning"], metrics_table(), left=4))
        context.exit()


@click.command(name="gate")
@click.argument("report", type=options.PATH)
@judged
@click.option("--metrics", is_flag=True, is_eager=True, expose_value=False, callback=_list_metrics,
              help="List every number that a gate can be set on.")  # fmt: skip
@options.output(None, "Folder for report.json, report.md and report.html with the outcome; default: not written again.")
def command(report: Path, judge_with: Callable[..., Judge], output: Path | None) -> None:
    """Hold a benchmark's REPORT against limits, or compare it with an older one, without measuring again.

    REPORT is a report.json, or the folder that holds it. Without new gates those count that it was held against before.

    \b
    segdeploy gate report --gate 'miou_drop<=0.003' --gate 'speedup_low>=1.5' --junit gates.xml
    segdeploy gate report --compare main/report.json --gate 'slower_rows==0' --gate 'miou_change>=-0.002'

    A gate holds for every row but torch's own, or for those that it selects in brackets by name, backend, variant,
    precision, provider, batch, threads, height or width. It is not kept by a row that failed, by a number that is
    not known, nor by a selector that finds no row.
    """
    from segdeploy.benchmark.report import write_report
    from segdeploy.benchmark.result import read_result

    held = read_result(report)
    judge = judge_with(held=held)
    result = judge.judge(held)
    if output is not None:
        say(f"report: {write_report(result, output)}")
    tell(judge, result)
