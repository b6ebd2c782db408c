"""The training loop, plain torch: epochs over one run in memory, each validated and written down."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.checkpoint import load_training_state, load_weights, save_training_state, save_weights
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.errors import SegdeployError
from segdeploy.model.segmenter import Deployed, Segmenter, backbone_of
from segdeploy.progress import progress
from segdeploy.runtime.runner import RunnerOptions
from segdeploy.runtime.torch_runner import TorchRunner
from segdeploy.train.ema import build_ema
from segdeploy.train.examples import Extremes
from segdeploy.train.losses import build_loss
from segdeploy.train.optim import build_optimizer, learning_rate
from segdeploy.train.pace import Pace
from segdeploy.train.record import Record, training_set_metadata
from segdeploy.train.validate import evaluate_with_loss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.scan import ScanReport
    from segdeploy.data.table import Part, Sample
    from segdeploy.evaluate import EvalResult, OnScored
    from segdeploy.metrics import Scores
    from segdeploy.model.spec import ModelSpec
    from segdeploy.run_folder import Skip

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


class Training:
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
        self.data = Dataset(parts["training"], spec, config.preprocessing.cache)
        log.info("%s", self.data.describe_cache())
        self.model = segmenter.to(self.device).to(memory_format=torch.channels_last)
        self.frozen = not config.image.encoder.get("trainable", True)
        if self.frozen:
            backbone_of(self.model.encoder).requires_grad_(False)
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
        size = min(config.trainer.samples_per_step, len(self.data))
        self.batch_size, self.steps = size, len(self.data) // size  # a short last batch would upset batch norm
        self.pace = Pace(config.trainer.epochs, self.steps, self.batch_size)

    def load(self) -> None:
        """Take up the state of the checkpoint."""
        saved = load_training_state(self.folder / place.LATEST_FILE, self.model, self.ema, self.optimizer)
        self.state = _State(**saved)
        if self.mixed and self.state.scaler:  # a run that began on a CPU has none
            self.scaler.load_state_dict(self.state.scaler)

    def save(self) -> None:
        """Write the checkpoint, and for people how far it is."""
        if self.skip.progress:
            return
        self.state.scaler = self.scaler.state_dict()
        save_training_state(self.folder / place.LATEST_FILE, self.model, self.ema, self.optimizer, asdict(self.state))
        shown = {k: v for k, v in asdict(self.state).items() if k != "scaler"}
        files.write_json(self.folder / place.PROGRESS_FILE, shown | {"epochs": self.config.trainer.epochs})

    def go(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        """Train to the last epoch, score the best weights on the test part, write the model card."""
        schedule = self.config.trainer.learning_rate_scheduler
        if schedule.decay == "cosine" and schedule.t_0 is None:
            total = self.config.trainer.epochs * self.steps
            log.info("learning rate: cosine, once down over all %d steps; Ludwig restarts every t_0 steps", total)
        with Record(self.run, self.folder, self.config, self.spec, self.state.epoch, self.skip) as record:
            while self.state.epoch < self.config.trainer.epochs and not self.stalled:
                row, scores, extremes = self.epoch()
                record.add(row, scores, extremes, best=self.state.best_epoch == row["epoch"])
                self.save()
                if on_epoch is not None:
                    on_epoch(row)
            if self.parts["test"]:
                load_weights(self.folder / place.WEIGHTS_FILE, self.kept)
                record.add_test(self.score("test", boundary=True).to_dict(self.spec)[self.spec.mask_name])
            record.write_card(self.report, {part: len(samples) for part, samples in self.parts.items()})
        return TrainResult(
            run=self.run,
            model=self.folder,
            best_mean_iou=self.state.best_mean_iou,
            best_epoch=self.state.best_epoch,
            history=record.history,
            statistics=record.statistics(),
            test_mean_iou=record.test["mean_iou"] if record.test else None,
            parts=self.parts,
            metadata=training_set_metadata(self.config, self.report),
        )

    @property
    def stalled(self) -> bool:
        """Whether `early_stop` epochs have passed without a better score."""
        patience = self.config.trainer.early_stop
        return 0 < patience <= self.state.epoch - self.state.best_epoch

    def epoch(self) -> tuple[dict[str, Any], Scores, Extremes]:
        """Train once through the data, validate, keep the best weights."""
        number = self.state.epoch + 1
        started = time.perf_counter()
        loss = self._train_epoch(number)
        trained = time.perf_counter() - started
        extremes = Extremes()
        # Boundaries cost time and choose nothing here.
        result = self.score("validation", boundary=False, on_scored=extremes.add)
        scores, checked = result.scores, result.loss
        self.state.epoch = number
        if scores.mean_iou > self.state.best_mean_iou:
            self.state.best_mean_iou, self.state.best_epoch = scores.mean_iou, number
            parameters = sum(p.numel() for p in self.model.parameters())
            about = {"epoch": number, "validation_mean_iou": scores.mean_iou, "parameters": parameters}
            save_weights(self.folder / place.WEIGHTS_FILE, self.kept, about)
        row = {
            "epoch": number,
            "step": self.state.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "training_loss": round(loss, 6),
            "validation_loss": None if checked is None or not math.isfinite(checked) else round(checked, 6),
            "validation_mean_iou": round(scores.mean_iou, 6),
            "validation_pixel_accuracy": round(scores.pixel_accuracy, 6),
            "training_images_per_second": round(self.steps * self.batch_size / trained, 3),
            "seconds": round(time.perf_counter() - started, 3),
        }
        return row, scores, extremes

    def _train_epoch(self, number: int) -> float:
        # Seeded by (seed, epoch): a resumed epoch draws what the uninterrupted one would have drawn.
        seed = self.config.trainer.seed * 1_000_003 + number
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.data), generator=generator).tolist()[: self.steps * self.batch_size]
        self.model.train()
        if self.frozen:
            backbone_of(self.model.encoder).eval()
        total = torch.zeros(2, device=self.device)
        done = 0

        def note() -> str:
            loss, rate = float(total[0]) / max(1, done), self.optimizer.param_groups[0]["lr"]
            return self.pace.note(done, loss, rate, self.state.best_mean_iou)

        self.pace.begin(number)
        with progress(f"epoch {number}/{self.config.trainer.epochs}", note) as step:
            for images, masks in self.data.batches(order, self.batch_size):
                x, y = self.augment(
                    torch.from_numpy(images).to(self.device), torch.from_numpy(masks).to(self.device), generator
                )
                total += self._step(x.contiguous(memory_format=torch.channels_last), y)
                done += 1
                step(done, self.steps)
        mean, optimised = map(float, (total / self.steps).tolist())
        if not math.isfinite(optimised):
            raise SegdeployError(
                f"{self.run}: the training loss of epoch {number} is {optimised}; lower trainer.learning_rate, "
                f"or set trainer.use_mixed_precision: false"
            )
        return mean

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One update; returns the loss, and what was minimised: the loss with those of the auxiliary maps."""
        trainer = self.config.trainer
        rate = learning_rate(
            self.state.step, trainer.epochs * self.steps, trainer.peak_learning_rate, trainer.learning_rate_scheduler
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for label in self.mute:
            y = y.masked_fill(y == label, self.loss.ignore_index)
        if not (y != self.loss.ignore_index).any():
            return torch.zeros(2, device=self.device)  # nothing to learn from
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.mixed):
            logits, auxiliary = self.model.forward_aux(x)
        main: torch.Tensor = self.loss(logits.float(), y)
        loss = main
        for weight, more in auxiliary:
            loss = loss + weight * self.loss(more.float(), y)
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
        return torch.stack([main, loss]).detach()

    @property
    def kept(self) -> torch.nn.Module:
        """The weights that are validated and shipped: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def score(self, part: Part, *, boundary: bool, on_scored: OnScored | None = None) -> EvalResult:
        """Scores and loss on the validation or test part, by the same code that `segdeploy evaluate` runs."""
        size = self.config.trainer.eval_batch_size or self.config.trainer.samples_per_step
        module = Deployed(self.kept, self.spec.preprocessing)
        runner = TorchRunner(module, str(self.device), RunnerOptions(threads=torch.get_num_threads()))
        with progress(f"scoring the {part} part") as step:
            return evaluate_with_loss(
                runner,
                self.loss,
                self.parts[part],
                self.spec,
                batch_size=size,
                boundary=boundary,
                progress=step,
                on_scored=on_scored,
            )
