"""segdeploy inspect."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from segdeploy.cli import options
from segdeploy.progress import progress, say

if TYPE_CHECKING:
    from pathlib import Path


def _target(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or value.upper() == "RTX":
        return value and "RTX"
    if not re.fullmatch(r"1[01](\.\d+)*", value):
        raise click.BadParameter(f"expected 10, 11, a release of them such as 10.3, or RTX, got {value!r}")
    return value


@click.command(name="inspect")
@click.argument("paths", nargs=-1, type=options.PATH, metavar="[PATH]...")
@click.option("-c", "--config", type=options.PATH, help="A YAML file: classes, columns, split, findings to allow.")
@click.option("--classes", type=options.PATH, help="A YAML file with the keys of a mask's preprocessing.")
@click.option("--trt", is_flag=True, help="Will the model's ONNX files, or any .onnx file, build with TensorRT?")
@click.option(
    "--trt-target",
    metavar="VERSION",
    callback=_target,
    help="With --trt: 10, 11, a release such as 10.3, or RTX; default: 10, 11 and RTX.",
)
@click.option("--precision", is_flag=True, help="What a bundle's FP16 and INT8 graphs compute in which, and why.")
@click.option("--augment", is_flag=True, help="Draw what the configuration makes of its training samples, as a PNG.")
@options.output("augmentation.png", "With --augment: the picture.")
@click.option("--samples", type=click.IntRange(1, 64), default=4, show_default=True, help="With --augment: samples.")
@click.option(
    "--draws", type=click.IntRange(1, 16), default=3, show_default=True, help="With --augment: draws of each."
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="With --augment: its draws.")
@click.option("--page", is_flag=True, help="Write a run's training.html anew, from the run's files.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def command(
    paths: tuple[Path, ...],
    config: Path | None,
    classes: Path | None,
    trt: bool,
    trt_target: str | None,
    precision: bool,
    augment: bool,
    output: Path,
    samples: int,
    draws: int,
    seed: int,
    page: bool,
    as_json: bool,
) -> int:
    """Say what a data set holds and what is wrong with it, or what a run, a bundle or an .onnx file is.

    PATH is a table, a folder with images/ and masks/, or a model; several tables are the parts that their names say.
    Without PATH the tables are those of the configuration. Exit code 2 where the data have errors.

    With --trt each node is held against a table of what TensorRT refuses or does badly, and the parser of each
    TensorRT that is installed here is asked too. Exit code 3 where an engine could not be built for one of the
    targets; warnings alone give 0.

    With --augment the samples are those of the table, or else the training part of the configuration's `data`.
    """
    from segdeploy.bundle import BUNDLE_FILE, open_model
    from segdeploy.config import load_config
    from segdeploy.errors import ConfigError
    from segdeploy.inspection import data_text, inspect_data, inspect_model, model_text, read_classes, read_tables
    from segdeploy.run_folder import find_model

    if trt or trt_target:
        return _inspect_trt(paths, trt_target, as_json)
    if precision:
        return _inspect_precision(paths, as_json)
    if augment:
        return _inspect_augment(paths, config, output, (samples, draws, seed))
    if page:
        return _write_page(paths)
    if not paths and config is None:
        raise ConfigError("expected a table, a folder, a model, or -c CONFIG whose `data` names the tables")
    path = paths[0] if len(paths) == 1 else None
    if path is not None and (path.suffix == ".onnx" or (path / BUNDLE_FILE).is_file() or find_model(path)):
        about = inspect_model(open_model(path))
        say(json.dumps(about, indent=2) if as_json else model_text(about))
        return 0
    if config is not None and classes is not None:
        raise ConfigError("expected either --config or --classes, got both")
    settings = load_config(config) if config else None
    mask = settings.mask.preprocessing if settings else read_classes(classes) if classes else None
    with progress("looking at images and masks") as step:
        found = inspect_data(read_tables(paths, settings), mask, settings.preprocessing.allow if settings else (), step)
    say(json.dumps(found, indent=2) if as_json else data_text(found))
    return 2 if any(f["severity"] == "error" for f in found["findings"]) else 0


def _inspect_trt(paths: tuple[Path, ...], target: str | None, as_json: bool) -> int:
    from segdeploy.errors import ModelError
    from segdeploy.export.trt_inspection import inspect_trt, trt_text

    if len(paths) != 1:
        raise ModelError(f"--trt: expected one .onnx file, bundle or run, got {len(paths)}")
    about = inspect_trt(paths[0], target)
    say(json.dumps(about, indent=2) if as_json else trt_text(about))
    return 0 if all(about["builds"].values()) else 3


def _inspect_precision(paths: tuple[Path, ...], as_json: bool) -> int:
    from segdeploy.bundle import open_model
    from segdeploy.errors import ModelError
    from segdeploy.export.decisions import decisions_text, read_decisions

    if len(paths) != 1:
        raise ModelError(f"--precision: expected one bundle, got {len(paths)}")
    tables = read_decisions(open_model(paths[0]))
    texts = [f"{name}\n{decisions_text(content)}" for name, content in tables.items()]
    say(json.dumps(tables, indent=2) if as_json else "\n\n".join(texts))
    return 0


def _inspect_augment(paths: tuple[Path, ...], config: Path | None, output: Path, shown: tuple[int, int, int]) -> int:
    from segdeploy.config import load_config
    from segdeploy.errors import ConfigError
    from segdeploy.plugin.extras import require

    if config is None or len(paths) > 1:
        raise ConfigError(f"--augment: expected -c CONFIG and at most one table, got {len(paths)} table(s)")
    require("train")
    from segdeploy.augment_preview import write_preview

    samples, draws, seed = shown
    path = write_preview(
        load_config(config), paths[0] if paths else None, output, samples=samples, draws=draws, seed=seed
    )
    say(f"{path}")
    return 0


def _write_page(paths: tuple[Path, ...]) -> int:
    from segdeploy.errors import ModelError
    from segdeploy.run_folder import find_run
    from segdeploy.train.page import write_page

    if len(paths) != 1:
        raise ModelError(f"--page: expected one run folder, got {len(paths)}")
    say(str(write_page(find_run(paths[0]) or paths[0])))
    return 0
