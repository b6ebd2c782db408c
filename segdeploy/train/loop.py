"""From a configuration and tables to a run folder (see `segdeploy.run_folder`): a new run, or one that goes on."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from segdeploy import bundle, files
from segdeploy import run_folder as place
from segdeploy.checkpoint import load_weights
from segdeploy.config.load import read_run_config
from segdeploy.data.augment_mix import check_mixing, pasted_classes
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import read_part_facts
from segdeploy.data.input_size import settle_input_size
from segdeploy.data.scan import ScanReport, judge
from segdeploy.data.split import configured_tables, describe_split, read_parts, write_parts, written_parts
from segdeploy.data.table import fingerprint
from segdeploy.environment import describe_machine
from segdeploy.errors import ModelError
from segdeploy.model.segmenter import Segmenter, build, from_config, try_training
from segdeploy.progress import progress
from segdeploy.run_folder import Skip, find_run
from segdeploy.train.auto import describe_device, settle_trainer
from segdeploy.train.distributed import joined
from segdeploy.train.epochs import Training, TrainResult
from segdeploy.train.freeze import freeze_configured
from segdeploy.train.learner import check_sync_batchnorm
from segdeploy.train.losses import class_weights
from segdeploy.train.optim import build_optimizer
from segdeploy.train.plan import make_plan
from segdeploy.train.record import training_set_metadata
from segdeploy.train.sharding import check_sharding
from segdeploy.train.track import Trackers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.bundle import Bundle
    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.data.table import Part, Sample, Tables
    from segdeploy.model.spec import ModelSpec

log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    tables: Tables,
    output: Path,
    *,
    name: str = "experiment_run",
    device: str = "auto",
    start_from: Path | None = None,
    skip: Skip | None = None,
    model_folder: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train from the beginning, into a new folder `output/name` (or name_0, name_1, ... where it is taken).

    Nothing is written before every sample has been checked and the model has been built.

    Args:
        config: the configuration.
        tables: where the samples are; what it leaves open, `config.data` fills in.
        output: folder for runs.
        name: the run's name.
        device: "auto", "cpu" or "cuda".
        start_from: a run or bundle of the same network, whose weights are the first ones.
        skip: what is not written.
        model_folder: where the model goes instead of RUN/model.
        on_epoch: called with each epoch's numbers.

    Raises:
        DataError, ConfigError, MissingPartError: see `settle_classes`, `judge`, `read_parts` and `from_config`.
        ModelError: `start_from` is another network.
        SegdeployError: the loss is no longer a number.
    """
    with joined(device, config.trainer.distributed_timeout) as processes:
        with processes.together():
            check_sync_batchnorm(config.trainer, processes)
            check_sharding(config.trainer, processes)
            tables = configured_tables(config.data, tables)
            parts, report = processes.once(lambda: checked_parts(config, tables), patient=True)
            config = settle_input_size(config, report.sizes)
            torch.manual_seed(config.trainer.seed)
            start = bundle.open_model(start_from) if start_from else None
            head = start.spec.head if start else None
            spec, segmenter = from_config(config, report.classes, pretrained=start is None, head=head)
            if start is not None:
                _load_start(start, segmenter)
            # The run will do this itself; here a mistake leaves nothing written.
            Trackers(config.trainer.trackers)
            encoder, samples = config.image.encoder, len(parts["training"])
            trained = start is not None or bool(encoder.get("use_pretrained") and encoder.get("trainable", True))
            log.info("%s", describe_device(processes.device.type, config.trainer))
            config = processes.once(
                partial(settle_trainer, config, segmenter, report, samples, processes, pretrained=trained)
            )
            plan = make_plan(samples, processes.size, config.trainer)
            check_mixing(config.image.augmentation, plan.share // plan.batches)
            frozen = freeze_configured(segmenter, config)
            build_optimizer(segmenter, config.trainer)
            try_training(segmenter, plan.share // plan.batches, config.image.training_size, frozen=frozen)
            new = partial(_begin, config, tables, spec, segmenter, parts, report, skip or Skip())
            run, model = processes.once(lambda: new(files.next_free(output / name), model_folder))
            if run != output / name:
                log.info("%s is taken: this run is %s", output / name, run)
        return Training(config, run, model, spec, segmenter, parts, report, processes, skip or Skip()).go(on_epoch)


def _begin(
    config: RunConfig,
    tables: Tables,
    spec: ModelSpec,
    segmenter: Segmenter,
    parts: dict[Part, list[Sample]],
    report: ScanReport,
    skip: Skip,
    run: Path,
    model_folder: Path | None,
) -> tuple[Path, Path]:
    """Write what a run knows before its first step; returns its folder and the model's."""
    model = model_folder or run / place.MODEL_FOLDER
    files.write_text(model / place.SPEC_FILE, spec.to_json() + "\n")
    files.write_text(model / place.CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    files.write_json(model / place.METADATA_FILE, training_set_metadata(config, report))
    digests = write_parts(run / place.SPLITS_FOLDER, parts, spec.image_column, spec.mask_column)
    if not skip.description:
        split = describe_split(tables, config, parts) | {"sha256": digests}
        files.write_json(run / place.DESCRIPTION_FILE, _describe(tables, split, parts, report, segmenter))
    return run, model


def _load_start(opened: Bundle, segmenter: Segmenter) -> None:
    weights = opened.find("weights")
    if weights is None:
        raise ModelError(f"{opened.path}: holds no weights to start from; expected a run folder or a bundle")
    # Other losses may teach it now: their heads come and go.
    load_weights(opened.path / weights.file, segmenter, optional="aux_heads.")


def resume(
    run: Path,
    *,
    tables: Tables | None = None,
    device: str = "auto",
    skip: Skip | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Go on where a run stopped, with its own configuration and split; `tables` where images or masks have moved.

    `run` may also be the model folder in it.

    Raises:
        ModelError: not a run folder with a training state, or the data of a part are not those that the run began
            with, which description.json tells; without that file a line in the log says so.
        DataError: see `checked_parts`.
    """
    run = find_run(run) or run
    model = run / place.MODEL_FOLDER
    if not (model / place.LATEST_FILE).is_file():
        raise ModelError(
            f"{run}: expected a run folder with {place.MODEL_FOLDER}/{place.LATEST_FILE}, found none"
            f"{place.runs_inside(run)}"
        )
    config = read_run_config(run)
    if config is None:
        raise ModelError(f"{run}: expected a run folder with {place.CONFIG_FILE} and {place.SPEC_FILE}")
    with joined(device, config.trainer.distributed_timeout) as processes:
        with processes.together():
            check_sync_batchnorm(config.trainer, processes)
            check_sharding(config.trainer, processes)
            spec = bundle.read_spec(model)
            parts, report = processes.once(lambda: _known_parts(config, run, tables, spec.classes), patient=True)
            training = Training(config, run, model, spec, build(spec), parts, report, processes, skip or Skip())
            training.load()
        return training.go(on_epoch)


def _known_parts(
    config: RunConfig, run: Path, tables: Tables | None, classes: ClassMap
) -> tuple[dict[Part, list[Sample]], ScanReport]:
    parts, report = checked_parts(config, tables or written_parts(run / place.SPLITS_FOLDER), classes)
    _check_same_data(run, parts)
    return parts, report


def _check_same_data(run: Path, parts: dict[Part, list[Sample]]) -> None:
    """Other training data teach something else, other validation data choose another epoch as the best."""
    file = run / place.DESCRIPTION_FILE
    if not file.is_file():
        log.warning("%s: has no %s, so nothing tells whether the data are still the same", run, file.name)
        return
    for part, about in json.loads(file.read_text())["data"].items():
        if fingerprint(parts[part]) != about["sha256"]:
            raise ModelError(f"{run}: the {part} data are not those that the run began with; start a new run")


def checked_parts(
    config: RunConfig, tables: Tables, classes: ClassMap | None = None
) -> tuple[dict[Part, list[Sample]], ScanReport]:
    """The samples of each part, every file of which was looked at, and what the training part holds.

    Args:
        config: the configuration.
        tables: where the samples are.
        classes: what a run has settled before; None: settled now, from the masks of all parts.

    Raises:
        DataError: see `read_parts`, `settle_classes` and `judge`.
        ConfigError: see `class_weights` and `pasted_classes`.
    """
    parts = read_parts(tables, config)
    with progress("checking images and masks") as step:
        facts = read_part_facts(parts, step)
    if classes is None:
        together = [f for some in facts.values() for f in some]
        classes = settle_classes(together, config.mask.preprocessing, f"output feature {config.mask.name!r}")
    # Frequencies come from the training part alone.
    report = judge(facts, classes, config.preprocessing.allow)["training"]
    for loss in config.mask.losses:
        class_weights(loss, classes, report)
    for change in config.image.augmentation:
        if change.type == "random_copy_paste":
            pasted_classes(change, report)
    return parts, report


def _describe(
    tables: Tables, split: dict[str, Any], parts: dict[Part, list[Sample]], report: ScanReport, model: Segmenter
) -> dict[str, Any]:
    return {
        "tables": tables.describe(),
        "split": split,
        "data": {part: {"samples": len(s), "sha256": fingerprint(s)} for part, s in parts.items()},
        "class_pixels": dict(zip(report.classes.names, report.pixels.tolist(), strict=True)),
        "ignored_pixels": report.ignored,
        "parameters": sum(p.numel() for p in model.parameters()),
        "machine": describe_machine(),
    }
