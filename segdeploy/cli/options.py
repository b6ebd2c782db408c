"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = click.Path(path_type=Path)

model = click.argument("model", type=PATH)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
threads = click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all cores of this process.")
backend = click.option("--backend", help="torch, onnxruntime or a plugin's; default: the first that can run the model.")


def output(default: str | None, what: str) -> Callable[[Any], Any]:
    """`-o`, with its default and what it holds."""
    return click.option("-o", "--output", type=PATH, default=default, show_default=default is not None, help=what)
