"""The training loop, plain torch, from a configuration and tables to a run folder.

A run folder holds
    model.json              how to rebuild the model (ModelSpec)
    weights.safetensors     the weights with the best validation mean IoU
    last.safetensors        everything that --resume needs: weights, optimiser, progress
    config.json             the configuration with all defaults filled in
    splits/                 training.csv, validation.csv, test.csv: which sample was in which part
    description.json        data, versions, machine
    metrics.jsonl           one line per epoch;  curves.png  the same as a picture;  tensorboard/  the same again
"""

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
from segdeploy.checkpoint import load_training_state, save_training_state, save_weights
from segdeploy.config.load import CONFIG_FILE, read_run_config
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import read_part_facts
from segdeploy.data.scan import ScanReport, judge
from segdeploy.data.table import Tables, fingerprint, read_parts
from segdeploy.environment import describe_machine
from segdeploy.errors import ModelError, SegdeployError
from segdeploy.evaluate import evaluate
from segdeploy.model.segmenter import Deployed, Segmenter, build, from_config
from segdeploy.model.spec import ModelSpec, parse_spec
from segdeploy.progress import progress
from segdeploy.runtime.runner import RunnerOptions
from segdeploy.runtime.torch_runner import TorchRunner, pick_device
from segdeploy.train.curves import write_curves
from segdeploy.train.ema import build_ema
from segdeploy.train.losses import build_loss
from segdeploy.train.optim import build_optimizer, learning_rate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.data.table import Part, Sample

log = logging.getLogger(__name__)

LAST_FILE = "last.safetensors"
METRICS_FILE = "metrics.jsonl"
DESCRIPTION_FILE = "description.json"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished training left behind."""

    run: Path
    best_mean_iou: float
    best_epoch: int
    history: list[dict[str, Any]]


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
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train from the beginning, into a new folder `output/name` (or name_0, name_1, ... where it is taken).

    Nothing is written before every sample has been checked and the model has been built.

    Raises:
        DataError, ConfigError, MissingPartError: see `settle_classes`, `judge`, `read_parts` and `from_config`.
        SegdeployError: the loss is no longer a number.
    """
    device = pick_device(device)
    parts, report = _checked_parts(config, tables)
    torch.manual_seed(config.trainer.seed)
    spec, segmenter = from_config(config, report.classes)
    run = files.next_free(output / name)
    files.write_text(run / bundle.MODEL_FILE, spec.to_json() + "\n")
    files.write_text(run / CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    for part, samples in parts.items():
        files.write_text(run / "splits" / f"{part}.csv", _table_text(samples, spec))
    files.write_json(run / DESCRIPTION_FILE, _describe(tables, parts, report, segmenter))
    return _Training(config, run, spec, segmenter, parts, report, device).go(on_epoch)


def resume(
    run: Path,
    *,
    tables: Tables | None = None,
    device: str = "auto",
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Go on where a run stopped, with its own configuration and tables; `tables` where the files have moved.

    Raises:
        ModelError: not a run folder with a training state.
        DataError: the data are not those that the run began with.
    """
    device = pick_device(device)
    if not (run / LAST_FILE).is_file():
        raise ModelError(
            f"{run}: expected a run folder with {LAST_FILE}, found none; it is written after the first epoch"
        )
    config = read_run_config(run)
    if config is None:
        raise ModelError(f"{run}: expected a run folder with {CONFIG_FILE} and {bundle.MODEL_FILE}")
    spec = parse_spec((run / bundle.MODEL_FILE).read_bytes(), str(run / bundle.MODEL_FILE))
    described = json.loads((run / DESCRIPTION_FILE).read_text())
    parts, report = _checked_parts(config, tables or _tables_from(described["tables"]), spec.classes)
    if fingerprint(parts["training"]) != described["data"]["training"]["sha256"]:
        raise ModelError(f"{run}: the training data are not those that the run began with; start a new run")
    training = _Training(config, run, spec, build(spec), parts, report, device)
    training.load()
    return training.go(on_epoch)


def _checked_parts(
    config: RunConfig, tables: Tables, classes: ClassMap | None = None
) -> tuple[dict[Part, list[Sample]], ScanReport]:
    """The samples of each part and a report on the training part; `classes` where they are settled already."""
    parts = read_parts(tables, config)
    with progress("checking images and masks") as step:
        facts = read_part_facts(parts, step)
    if classes is None:
        together = [f for some in facts.values() for f in some]
        classes = settle_classes(together, config.mask.preprocessing, f"output feature {config.mask.name!r}")
    # Frequencies come from the training part alone.
    return parts, judge(facts, classes, config.preprocessing.allow)["training"]


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
        spec: ModelSpec,
        segmenter: Segmenter,
        parts: dict[Part, list[Sample]],
        report: ScanReport,
        device: str,
    ) -> None:
        self.config, self.run, self.spec, self.parts = config, run, spec, parts
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
        """Take up the state of `last.safetensors`, and forget lines of later epochs."""
        saved = load_training_state(self.run / LAST_FILE, self.model, self.ema, self.optimizer)
        self.state = _State(**saved)
        if self.mixed and self.state.scaler:  # a run that began on a CPU has none
            self.scaler.load_state_dict(self.state.scaler)

    def save(self) -> None:
        self.state.scaler = self.scaler.state_dict()
        save_training_state(self.run / LAST_FILE, self.model, self.ema, self.optimizer, asdict(self.state))

    def go(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        history = _read_history(self.run / METRICS_FILE, self.state.epoch)
        with SummaryWriter(str(self.run / "tensorboard"), purge_step=self.state.epoch + 1) as board:
            while self.state.epoch < self.config.trainer.epochs:
                row = self.epoch()
                history.append(row)
                for key, value in row.items():
                    if key != "epoch":
                        board.add_scalar(key, value, row["epoch"])
                files.write_text(self.run / METRICS_FILE, "".join(json.dumps(r) + "\n" for r in history))
                write_curves(self.run / "curves.png", history)
                self.save()
                if on_epoch is not None:
                    on_epoch(row)
        return TrainResult(self.run, self.state.best_mean_iou, self.state.best_epoch, history)

    def epoch(self) -> dict[str, Any]:
        """Train once through the data, validate, keep the best weights."""
        number = self.state.epoch + 1
        started = time.perf_counter()
        loss = self._train_epoch(number)
        trained = time.perf_counter() - started
        scores = self.validate()
        self.state.epoch = number
        if scores.mean_iou > self.state.best_mean_iou:
            self.state.best_mean_iou, self.state.best_epoch = scores.mean_iou, number
            parameters = sum(p.numel() for p in self.model.parameters())
            about = {"epoch": number, "validation_mean_iou": scores.mean_iou, "parameters": parameters}
            save_weights(self.run / bundle.WEIGHTS_FILE, self.kept, about)
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

    def validate(self) -> Any:
        """Scores on the validation part, by the same code that `segdeploy evaluate` runs."""
        size = self.config.trainer.eval_batch_size or self.config.trainer.batch_size
        module = Deployed(self.kept, self.spec.preprocessing)
        runner = TorchRunner(module, str(self.device), RunnerOptions(threads=torch.get_num_threads()))
        with progress("validating") as step:
            return evaluate(runner, self.parts["validation"], self.spec, batch_size=size, progress=step).scores


def _read_history(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` up to `epochs`; a crash may have left one more, or none."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["epoch"] <= epochs]
