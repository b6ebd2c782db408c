"""Options that say how an engine is built, for `segdeploy export --trt` and `segdeploy build` alike."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.export.build import Changes

_OPTIONS = (
    click.option(
        "--trt-flavour",
        type=click.Choice(["tensorrt", "rtx"]),
        help="TensorRT, or TensorRT for RTX; default: TensorRT where it and a GPU are, else that for RTX.",
    ),
    click.option(
        "--compute-capability",
        metavar="sm86,sm120",
        help="GPUs that an engine of TensorRT for RTX is for, in one file; default: all from 8.0 on.",
    ),
    click.option(
        "--batch",
        multiple=True,
        metavar="MIN,OPT,MAX",
        help="Images per call: least, tuned for, most. Several times: a profile each. Default: 1,1,8.",
    ),
    click.option("--height", metavar="MIN,OPT,MAX", help="Where the graph leaves it free; default: the model's."),
    click.option("--width", metavar="MIN,OPT,MAX", help="Where the graph leaves it free; default: the model's."),
    click.option(
        "--workspace", type=click.IntRange(min=1), metavar="MIB", help="Limit of memory for kernels; default: all."
    ),
    click.option(
        "--optimization-level", type=click.IntRange(0, 5), help="How long to look for faster kernels; default: 3."
    ),
    click.option(
        "--version-compatible/--no-version-compatible", default=None, help="Also run on later TensorRT; slower."
    ),
    click.option(
        "--hardware-compatible",
        type=click.Choice(["none", "ampere_plus", "same_compute_capability"]),
        help="Also run on other GPUs; slower.",
    ),
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them; the command gets `changes`, a function that makes `Changes` of them for a precision."""

    @functools.wraps(command)
    def wrapped(
        *,
        trt_flavour: str | None,
        compute_capability: str | None,
        batch: tuple[str, ...],
        height: str | None,
        width: str | None,
        workspace: int | None,
        optimization_level: int | None,
        version_compatible: bool | None,
        hardware_compatible: str | None,
        **given: Any,
    ) -> Any:
        def changes(precision: str | None) -> Changes:
            from segdeploy.export.build import Changes
            from segdeploy.export.engine_options import parse_range

            return Changes(
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

        return command(changes=changes, **given)

    for add in reversed(_OPTIONS):
        wrapped = add(wrapped)
    return wrapped
