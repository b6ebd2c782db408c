"""Options that hold a benchmark against limits and an older one: of `segdeploy benchmark` and `segdeploy gate`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from segdeploy.cli.options import PATH
from segdeploy.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from segdeploy.benchmark.judge import Judge
    from segdeploy.benchmark.result import BenchmarkResult

_OPTIONS = (
    click.option(
        "--gate",
        "texts",
        multiple=True,
        metavar="'METRIC<=N'",
        help="A limit, such as 'miou_drop<=0.003' or 'p99_ms[backend=onnxruntime,batch=1]<=25'; several times: all must"
        " be kept, else exit code 3. `segdeploy gate --metrics` lists them.",
    ),
    click.option("--gates", "file", type=PATH, help="YAML file with a list of gates."),
    click.option("--compare", "older", type=PATH, metavar="REPORT", help="Older report.json: say what has changed."),
    click.option("--junit", type=PATH, metavar="FILE", help="Write the gates as JUnit XML."),
    click.option(
        "--summary", type=PATH, metavar="FILE", help="Write a short Markdown summary; $GITHUB_STEP_SUMMARY is added to."
    ),
)


def judged(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them; the command gets `judge_with`, a function that checks them and gives a `Judge`.

    Its arguments: gates of the configuration, which hold besides; what rows can be selected by, as `check_selectors`
    takes it; the report that is to be judged, where there is one already.
    """

    @functools.wraps(command)
    def wrapped(
        *,
        texts: tuple[str, ...],
        file: Path | None,
        older: Path | None,
        junit: Path | None,
        summary: Path | None,
        **given: Any,
    ) -> Any:
        def judge_with(
            own: Sequence[str] = (),
            known: Mapping[str, Collection[str]] | None = None,
            held: BenchmarkResult | None = None,
        ) -> Judge:
            from segdeploy.benchmark.gates import check_selectors
            from segdeploy.benchmark.judge import Judge
            from segdeploy.benchmark.result import read_result
            from segdeploy.config.gates import parse_gates, read_gates
            from segdeploy.errors import ConfigError

            written = (*(read_gates(file) if file else ()), *parse_gates(texts, "--gate"))
            # The configuration's may be about more than is measured today; those are not kept, once all is written.
            compares = older is not None or (held is not None and held.comparison is not None)
            check_selectors(written, known or {}, compares=compares)
            gates = tuple({gate.text: gate for gate in (*parse_gates(own, "benchmark.gates"), *written)}.values())
            if not gates and not (held and held.gates):
                if junit is not None:
                    raise ConfigError("--junit: there is no gate to report; give --gate or --gates")
                if held is not None and older is None:
                    raise ConfigError("expected --gate, --gates or --compare")
            return Judge(gates, read_result(older) if older else None, str(older or ""), junit, summary)

        return command(judge_with=judge_with, **given)

    for add in reversed(_OPTIONS):
        wrapped = add(wrapped)
    return wrapped


def tell(judge: Judge, result: BenchmarkResult) -> None:
    """Print what changed and how many gates were kept, write what a CI reads; GateError where one was not."""
    from segdeploy.benchmark.summary import change_lines, gates_line

    if result.comparison:
        say(f"since {result.comparison.against}: {result.comparison.verdict}")
        for rows, verdict, why in change_lines(result.comparison):
            say(f"  {verdict}: {rows}: {why}")
        for line in result.comparison.differences:
            say(f"  not the same: {line}")
    if result.gates:
        say(f"gates: {gates_line(result.gates)}")
    judge.tell(result)
