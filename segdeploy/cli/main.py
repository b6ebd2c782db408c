"""The `segdeploy` group: commands are imported when they are called, errors of the user's are one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys

import click

from segdeploy import __version__
from segdeploy.errors import SegdeployError

# Name, module and one line, so that --help imports none of them.
COMMANDS = {
    "demo": "generate a data set, train, export, verify, benchmark: the whole path in minutes on a CPU",
    "init": "look at a data set and write a configuration that trains on it",
    "train": "train a model from a YAML file and tables of images and masks",
    "import": "turn a model of transformers, segmentation_models.pytorch or your own into a run",
    "evaluate": "score a run or bundle on a table",
    "predict": "write masks for images and folders of images",
    "export": "turn a run into a verified bundle: ONNX, and a TensorRT engine with --trt",
    "build": "build or rebuild a bundle's TensorRT engine for this machine, and compare it",
    "benchmark": "accuracy and speed of every backend, as one report",
    "gate": "hold a benchmark's report against limits, or compare it with an older one",
    "inspect": "what a data set holds and what is wrong with it, or what a model is",
    "debug": "find the first tensor where two graphs or backends part",
    "plugins": "list encoders, decoders and backends, and show their keys",
}
# Ludwig's names of commands; --help leaves them out.
_LUDWIG = ("export-model",)
# A benchmark measures engines as their users run them.
_AS_THEY_ARE = ("benchmark", "demo")


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(set(self.commands) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _AS_THEY_ARE:
            # OpenMP threads that sleep while they wait save an order of magnitude on a busy machine. It must
            # be set before torch is imported.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        name = cmd_name.replace("_", "-")
        if name in (*COMMANDS, *_LUDWIG):
            module = "import_" if name == "import" else name.replace("-", "_")  # a word of Python
            command: click.Command = importlib.import_module(f"segdeploy.cli.{module}").command
            return command
        if cmd_name not in self.commands:
            from segdeploy.plugin import registry

            known = registry.catalogue("command")
            self.commands.update(known.plugins)
            if cmd_name not in self.commands and known.failures:
                raise click.UsageError(f"No such command {cmd_name!r}{registry.may_hold(['command'])}", ctx)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _dashes(word: str) -> str:
    return word.replace("_", "-")


# Ludwig writes --output_directory where we write --output-directory.
@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _dashes})
@click.version_option(__version__, prog_name="segdeploy")
@click.option("-v", "--verbose", count=True, help="Say more; twice: say everything.")
def cli(verbose: int) -> None:
    """From labelled images to a verified segmentation engine.

    \b
    segdeploy init      data/ -o config.yaml
    segdeploy train     -c config.yaml
    segdeploy export    results/experiment_run -o bundle --verify val.csv
    segdeploy benchmark bundle --dataset test.csv -o report
    """
    _log_to_stderr(verbose)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


def _log_to_stderr(verbose: int) -> None:
    """What segdeploy has to say, and other libraries' warnings; `verbose` adds theirs and all details."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(name)s: %(message)s" if verbose else "%(message)s"))
    logging.basicConfig(level=[logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)], handlers=[handler])
    logging.getLogger("segdeploy").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


def main(args: list[str] | None = None) -> None:
    """Run a command.

    Exit codes: 0 done, 2 bad input or a missing part, 3 a limit not kept, 1 a bug (traceback); of a training that a
    signal ended 128 + its number.
    """
    try:
        code = cli.main(args, prog_name="segdeploy", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except SegdeployError as e:
        click.echo(f"segdeploy: {e}", err=True)
        sys.exit(e.exit_code)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("segdeploy: stopped", err=True)
        sys.exit(130)
    except OSError as e:
        if e.filename is None:
            raise
        click.echo(f"segdeploy: {os.fsdecode(e.filename)}: {e.strerror}", err=True)
        sys.exit(2)
