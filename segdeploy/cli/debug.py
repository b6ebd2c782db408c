"""segdeploy debug."""

from __future__ import annotations

import json
from pathlib import Path

import click

from segdeploy.cli import options
from segdeploy.progress import say


@click.group(name="debug", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Find out where results go apart."""


@command.command(name="diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--image", type=options.PATH, help="A picture to run; default: one that is made up.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.01, show_default=True,
              help="Largest norm of a tensor's difference, as a share of its own.")  # fmt: skip
@click.option("--first", type=click.IntRange(min=1), default=10, show_default=True, help="How many tensors to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all of them.")
def diff_command(a: str, b: str, image: Path | None, tolerance: float, first: int, as_json: bool) -> int:
    """Say at which tensor A and B part.

    \b
    A and B are each an .onnx file, or PATH@WHAT:
      bundle@fp16    the bundle's graph of that precision (without @: fp32)
      bundle@torch   a backend, whose masks alone are compared

    Exit code 3 where they part.
    """
    from segdeploy.plugin.extras import require

    require("train")
    from segdeploy.debug import diff, diff_text, input_of, split_what

    (path_a, what_a), (path_b, what_b) = split_what(a), split_what(b)
    picture = input_of(Path(path_a), image)
    found = diff(Path(path_a), Path(path_b), picture, what_a, what_b, tolerance)
    say(json.dumps(found.to_dict(), indent=2, allow_nan=False) if as_json else diff_text(found, (a, b), first))
    return 0 if found.equal else 3
