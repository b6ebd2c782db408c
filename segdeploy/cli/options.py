"""Options that several commands share, and Ludwig's spellings of them."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segdeploy.arguments import backend_of, device_of
from segdeploy.run_folder import Skip

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., Any]

PATH = click.Path(path_type=Path)
SPLITS = ("training", "validation", "test", "full")


def words(*choices: str) -> Callable[[click.Context, click.Parameter, str | None], tuple[str, ...] | None]:
    """A callback for comma-separated words, each one of `choices`: gives them as a tuple, None for none."""

    def split(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        found = tuple(word.strip() for word in value.split(",")) if value is not None else None
        if unknown := [w for w in found or () if w not in choices]:
            raise click.BadParameter(f"{unknown[0]!r}: expected some of {','.join(choices)}")
        return found

    return split


class Option(click.Option):
    """An option with further names, Ludwig's, that work and that --help leaves out.

    On the command line `_` and `-` are the same inside a name (see `cli.main`).
    """

    def __init__(self, *args: Any, ludwig: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ludwig = ludwig

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Tell the parser all names."""
        shown, self.opts = self.opts, [*self.opts, *self.ludwig]
        super().add_to_parser(parser, ctx)
        self.opts = shown


def option(*names: str, **about: Any) -> Callable[[Command], Command]:
    """`click.option`; `ludwig` are further names."""
    return click.option(*names, cls=Option, **about)


threads = option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all cores of this process.")
precision = option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="Which of a bundle's files to run; auto: fp32, or the engine's own.",
)
device = option(
    "--device",
    default="auto",
    show_default=True,
    ludwig=("-g", "--gpus"),
    callback=lambda _, __, value: device_of(value),
    help="auto, cpu or cuda.",
)
backend = option(
    "--backend",
    ludwig=("-b",),
    callback=lambda _, __, value: backend_of(value),
    help="torch, onnxruntime or a plugin's; default: the first that can run the model.",
)
host_code = option(
    "--allow-host-code",
    "host_code",
    is_flag=True,
    help="Run a version-compatible TensorRT engine, which brings code for the CPU; only if its maker is trusted.",
)
batch_size = option(
    "--batch-size", type=click.IntRange(min=1), default=1, show_default=True, ludwig=("-bs",), help="Images per call."
)
split = option(
    "--split",
    type=click.Choice(SPLITS),
    default="full",
    show_default=True,
    ludwig=("-s",),
    help="The table's rows of one part; without a table, that part of a run's own data.",
)


def output(default: str | None, what: str) -> Callable[[Command], Command]:
    """`-o`, with its default and what it holds."""
    return option(
        "-o",
        "--output",
        type=PATH,
        default=default,
        show_default=default is not None,
        ludwig=("-od", "--output-directory", "--output-path"),
        help=what,
    )


def model(command: Command) -> Command:
    """MODEL as the first argument, or Ludwig's `-m`; the command gets `model`.

    With `-m` the first argument, if there is one, is handed on as the first of `inputs`.
    """

    @click.argument("model", type=PATH, required=False, metavar="MODEL")
    @click.option("-m", "--model-path", type=PATH, hidden=True)
    @functools.wraps(command)
    def wrapped(*, model: Path | None, model_path: Path | None, **given: Any) -> Any:
        if model_path is not None and model is not None:
            if "inputs" not in given:
                raise click.UsageError("MODEL is given twice: as an argument and with -m")
            given["inputs"] = (model, *given["inputs"])
        if (chosen := model_path or model) is None:
            raise click.UsageError("Missing argument 'MODEL'.")
        return command(model=chosen, **given)

    return wrapped


def logging_level(command: Command) -> Command:
    """Ludwig's `-l LEVEL`."""

    def set_level(_: click.Context, __: click.Parameter, value: str | None) -> None:
        if value is not None:
            for logger in (None, "segdeploy"):  # the second has a level of its own, see `cli.main`
                logging.getLogger(logger).setLevel(value.upper())

    levels = click.Choice(["critical", "error", "warning", "info", "debug", "notset"])
    return click.option("-l", "--logging-level", type=levels, hidden=True, expose_value=False, callback=set_level)(
        command
    )


def without_effect(*flags: str) -> Callable[[Command], Command]:
    """Ludwig's flags that skip what segdeploy does not do anyway."""

    def add(command: Command) -> Command:
        for flag in flags:
            command = click.option(flag, is_flag=True, hidden=True, expose_value=False)(command)
        return command

    return add


_SKIPS = {
    "description": ("-sstd", "--skip-save-training-description"),
    "statistics": ("-ssts", "--skip-save-training-statistics"),
    "progress": ("-ssp", "--skip-save-progress"),
    "log": ("-ssl", "--skip-save-log"),
}


def skips(command: Command) -> Command:
    """Ludwig's `--skip_save_*` of training, and `--skip-pictures`; the command gets `skip`."""

    @without_effect("--skip-save-processed-input", "-sspi")
    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        chosen = {name: given.pop(f"skip_{name}") for name in (*_SKIPS, "pictures")}
        return command(skip=Skip(**chosen), **given)

    shown = click.option(
        "skip_pictures", "--skip-pictures", is_flag=True, help="Keep validation images out of training.html."
    )
    done: Command = shown(wrapped)
    for name, spellings in _SKIPS.items():
        done = click.option(f"skip_{name}", *spellings, is_flag=True, hidden=True)(done)
    return done
