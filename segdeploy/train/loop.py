"""The training loop, plain torch, from a configuration and tables to a run folder (see `segdeploy.run_folder`)."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from segdeploy import bundle, files
from segdeploy import run_folder as place
from segdeploy.checkpoint import load_training_state, load_weights, save_training_state, save_weights
from segdeploy.config.load import read_run_config
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.data.scan import ScanReport, resolve_encoding, scan_parts
from segdeploy.data.table import Tables, fingerprint, read_parts
from segdeploy.environment import describe_machine
from segdeploy.errors import ModelError, SegdeployError
from segdeploy.evaluate import evaluate
from segdeploy.model.segmenter import Deployed, Segmenter, build, from_config
from segdeploy.progress import progress
from segdeploy.run_folder import Skip, find_run
from segdeploy.runtime.runner import RunnerOptions
from segdeploy.runtime.torch_runner import TorchRunner, pick_device
from segdeploy.train.ema import build_ema
from segdeploy.train.losses import build_loss
from segdeploy.train.optim import build_optimizer, learning_rate
from segdeploy.train.record import Record, training_set_metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.table import Part, Sample
    from segdeploy.evaluate import EvalResult
    from segdeploy.model.spec import ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished training left behind."""

    run: Path
    model: Path
    """The model folder: RUN/model, unless the caller wanted it elsewhere."""
    best_mean_iou: float
    best_epoch: int
    history: list[dict[str, Any]]
    statistics: dict[str, Any]
    """What training_statistics.json holds."""
    test_mean_iou: float | None
    """Of the best weights on the test part; None without one."""
    parts: dict[Part, list[Sample]]
    metadata: dict[str, Any]
    """What training_set_metadata.json holds."""


@dataclass(slots=True)
class _State:
    """All that changes from epoch to epoch besides the tensors."""

    epoch: int = 0
    step: int = 0
    best_mean_iou: float = -1.0
    best_epoch: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)


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
        tables: where the samples are.
        output: folder for runs.
        name: the run's name.
        device: "auto", "cpu" or "cuda".
        start_from: a run or bundle of the same network, whose weights are the first ones.
        skip: what is not written.
        model_folder: where the model goes instead of RUN/model.
        on_epoch: called with each epoch's numbers.

    Raises:
        DataError, ConfigError, MissingPartError: see `scan`, `read_parts` and `from_config`.
        ModelError: `start_from` is another network.
        SegdeployError: the loss is no longer a number.
    """
    device, skip = pick_device(device), skip or Skip()
    parts, report = checked_parts(config, tables)
    torch.manual_seed(config.trainer.seed)
    spec, segmenter = from_config(config, report.classes, pretrained=start_from is None)
    if start_from is not None:
        _load_start(start_from, segmenter)
    run = files.next_free(output / name)
    model = model_folder or run / place.MODEL_FOLDER
    files.write_text(model / place.SPEC_FILE, spec.to_json() + "\n")
    files.write_text(model / place.CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    files.write_json(model / place.METADATA_FILE, training_set_metadata(spec, report))
    for part, samples in parts.items():
        files.write_text(place.part_table(run, part), _table_text(samples, spec))
    if not skip.description:
        files.write_json(run / place.DESCRIPTION_FILE, _describe(tables, parts, report, segmenter))
    return _Training(config, run, model, spec, segmenter, parts, report, device, skip).go(on_epoch)


def _load_start(path: Path, segmenter: Segmenter) -> None:
    opened = bundle.open_model(path)
    weights = opened.find("weights")
    if weights is None:
        raise ModelError(f"{path}: holds no weights to start from; expected a run folder or a bundle")
    load_weights(opened.path / weights.file, segmenter)


def resume(
    run: Path,
    *,
    tables: Tables | None = None,
    device: str = "auto",
    skip: Skip | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Go on where a run stopped, with its own configuration and tables; `tables` where the files have moved.

    `run` may also be the model folder in it.

    Raises:
        ModelError: not a run folder with a training state.
        DataError: the data are not those that the run began with.
    """
    device = pick_device(device)
    run = find_run(run) or run
    model = run / place.MODEL_FOLDER
    for file, since in (
        (model / place.LATEST_FILE, "written after the first epoch"),
        (run / place.DESCRIPTION_FILE, "the data"),
    ):
        if not file.is_file():
            raise ModelError(f"{run}: expected a run folder with {file.relative_to(run)} ({since}), found none")
    config = read_run_config(run)
    if config is None:
        raise ModelError(f"{run}: expected a run folder with {place.CONFIG_FILE} and {place.SPEC_FILE}")
    spec = bundle.read_spec(model)
    described = json.loads((run / place.DESCRIPTION_FILE).read_text())
    parts, report = checked_parts(config, tables or _tables_from(described["tables"]))
    if fingerprint(parts["training"]) != described["data"]["training"]["sha256"]:
        raise ModelError(f"{run}: the training data are not those that the run began with; start a new run")
    training = _Training(config, run, model, spec, build(spec), parts, report, device, skip or Skip())
    training.load()
    return training.go(on_epoch)


def checked_parts(config: RunConfig, tables: Tables) -> tuple[dict[Part, list[Sample]], ScanReport]:
    """The samples of each part, every file of which was opened, and what the training part holds.

    Raises:
        DataError: see `read_parts` and `scan_parts`; or training or validation masks without a label.
    """
    parts = read_parts(tables, config)
    classes = resolve_encoding(parts["training"], config.mask.preprocessing.class_map())
    with progress("checking images and masks") as step:
        reports = scan_parts(parts, classes, step)
    report = reports["training"].labelled("masks")  # frequencies come from the training part alone
    reports["validation"].labelled("validation masks")  # without a label no epoch could be the best
    absent = [name for name, count in zip(classes.names, report.pixels, strict=True) if not count]
    if absent:
        log.warning("no training mask holds the class(es) %s; check ignore_index and encoding", ", ".join(absent))
    return parts, report


def _table_text(samples: list[Sample], spec: ModelSpec) -> str:
    """A CSV of absolute paths, so that each part can be scored later by itself."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([spec.image_column, spec.mask_column])
    writer.writerows([s.image.resolve(), s.mask.resolve() if s.mask else ""] for s in samples)
    return text.getvalue()


def _tables_from(described: dict[str, str | None]) -> Tables:
    from pathlib import Path

    return Tables(**{k: None if v is None else Path(v) for k, v in described.items()})


def _describe(tables: Tables, parts: dict[Part, list[Sample]], report: ScanReport, model: Segmenter) -> dict[str, Any]:
    return {
        "tables": {k: None if v is None else str(v.resolve()) for k, v in asdict(tables).items()},
        "data": {part: {"samples": len(s), "sha256": fingerprint(s)} for part, s in parts.items()},
        "class_pixels": dict(zip(report.classes.names, report.pixels.tolist(), strict=True)),
        "ignored_pixels": report.ignored,
        "parameters": sum(p.numel() for p in model.parameters()),
        "machine": describe_machine(),
    }


class _Training:
    """One run in memory."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        model: Path,
        spec: ModelSpec,
        segmenter: Segmenter,
        parts: dict[Part, list[Sample]],
        report: ScanReport,
        device: str,
        skip: Skip,
    ) -> None:
        self.config, self.run, self.folder, self.spec = config, run, model, spec
        self.parts, self.report, self.skip = parts, report, skip
        self.device = torch.device(device)
        self.data = Dataset(parts["training"], spec)
        self.model = segmenter.to(self.device).to(memory_format=torch.channels_last)
        self.frozen = not config.image.encoder.get("trainable", True)
        if self.frozen:
            self.model.encoder.requires_grad_(False)
        self.loss = build_loss(config.mask.loss, report).to(self.device)
        weight = self.loss.weight
        # A class of weight 0 teaches nothing: its pixels are ignored, which also keeps 0 / 0 out of the mean.
        self.mute = [] if weight is None else (weight == 0).nonzero().flatten().tolist()
        self.optimizer = build_optimizer(self.model, config.trainer)
        self.ema = build_ema(self.model, config.trainer.ema_decay) if config.trainer.ema_decay else None
        self.augment = Augment(config.image.augmentation, spec.preprocessing)
        self.mixed = config.trainer.use_mixed_precision and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.mixed)
        self.state = _State()
        size = min(config.trainer.batch_size, len(self.data))
        self.batch_size, self.steps = size, len(self.data) // size  # a short last batch would upset batch norm

    def load(self) -> None:
        """Take up the state of the checkpoint."""
        saved = load_training_state(self.folder / place.LATEST_FILE, self.model, self.ema, self.optimizer)
        self.state = _State(**saved)
        if self.mixed and self.state.scaler:  # a run that began on a CPU has none
            self.scaler.load_state_dict(self.state.scaler)

    def save(self) -> None:
        if self.skip.progress:
            return
        self.state.scaler = self.scaler.state_dict()
        save_training_state(self.folder / place.LATEST_FILE, self.model, self.ema, self.optimizer, asdict(self.state))
        shown = {k: v for k, v in asdict(self.state).items() if k != "scaler"}
        files.write_json(self.folder / place.PROGRESS_FILE, shown | {"epochs": self.config.trainer.epochs})

    def go(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        with Record(self.run, self.spec.mask_name, self.state.epoch, self.skip) as record:
            while self.state.epoch < self.config.trainer.epochs:
                row = self.epoch()
                record.add(row)
                self.save()
                if on_epoch is not None:
                    on_epoch(row)
            if self.parts["test"]:
                load_weights(self.folder / place.WEIGHTS_FILE, self.kept)
                record.add_test(self.score("test").to_dict(self.spec)[self.spec.mask_name])
        record.write_card(self.spec, self.report, {part: len(samples) for part, samples in self.parts.items()})
        return TrainResult(
            run=self.run,
            model=self.folder,
            best_mean_iou=self.state.best_mean_iou,
            best_epoch=self.state.best_epoch,
            history=record.history,
            statistics=record.statistics(),
            test_mean_iou=record.test["mean_iou"] if record.test else None,
            parts=self.parts,
            metadata=training_set_metadata(self.spec, self.report),
        )

    def epoch(self) -> dict[str, Any]:
        """Train once through the data, validate, keep the best weights."""
        number = self.state.epoch + 1
        started = time.perf_counter()
        loss = self._train_epoch(number)
        trained = time.perf_counter() - started
        scores = self.score("validation").scores
        self.state.epoch = number
        if scores.mean_iou > self.state.best_mean_iou:
            self.state.best_mean_iou, self.state.best_epoch = scores.mean_iou, number
            parameters = sum(p.numel() for p in self.model.parameters())
            about = {"epoch": number, "validation_mean_iou": scores.mean_iou, "parameters": parameters}
            save_weights(self.folder / place.WEIGHTS_FILE, self.kept, about)
        return {
            "epoch": number,
            "step": self.state.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "training_loss": round(loss, 6),
            "validation_mean_iou": round(scores.mean_iou, 6),
            "validation_pixel_accuracy": round(scores.pixel_accuracy, 6),
            "training_images_per_second": round(self.steps * self.batch_size / trained, 3),
            "seconds": round(time.perf_counter() - started, 3),
        }

    def _train_epoch(self, number: int) -> float:
        # Seeded by (seed, epoch): a resumed epoch draws what the uninterrupted one would have drawn.
        seed = self.config.trainer.seed * 1_000_003 + number
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.data), generator=generator).tolist()[: self.steps * self.batch_size]
        self.model.train()
        if self.frozen:
            self.model.encoder.eval()
        total = torch.zeros((), device=self.device)
        done = 0
        with progress(f"epoch {number}/{self.config.trainer.epochs}") as step:
            for images, masks in self.data.batches(order, self.batch_size):
                x, y = self.augment(
                    torch.from_numpy(images).to(self.device), torch.from_numpy(masks).to(self.device), generator
                )
                total += self._step(x.contiguous(memory_format=torch.channels_last), y)
                done += 1
                step(done, self.steps)
        mean = (total / self.steps).item()
        if not math.isfinite(mean):
            raise SegdeployError(
                f"{self.run}: the training loss of epoch {number} is {mean}; lower trainer.learning_rate, "
                f"or set trainer.use_mixed_precision: false"
            )
        return mean

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One update; returns the loss."""
        trainer = self.config.trainer
        rate = learning_rate(
            self.state.step, trainer.epochs * self.steps, trainer.learning_rate, trainer.learning_rate_scheduler
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for label in self.mute:
            y = y.masked_fill(y == label, self.loss.ignore_index)
        if not (y != self.loss.ignore_index).any():
            return torch.zeros((), device=self.device)  # nothing to learn from
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.mixed):
            logits = self.model(x)
        loss: torch.Tensor = self.loss(logits.float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if trainer.gradient_clipping.clipglobalnorm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), trainer.gradient_clipping.clipglobalnorm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.state.step += 1
        return loss.detach()

    @property
    def kept(self) -> torch.nn.Module:
        """The weights that are validated and shipped: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def score(self, part: Part) -> EvalResult:
        """Scores on the validation or test part, by the same code that `segdeploy evaluate` runs."""
        size = self.config.trainer.eval_batch_size or self.config.trainer.batch_size
        module = Deployed(self.kept, self.spec.preprocessing)
        runner = TorchRunner(module, str(self.device), RunnerOptions(threads=torch.get_num_threads()))
        with progress(f"scoring the {part} part") as step:
            return evaluate(runner, self.parts[part], self.spec, batch_size=size, progress=step)
