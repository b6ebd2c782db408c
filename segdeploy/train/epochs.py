"""The training loop, plain torch: epochs over one run in memory, each validated and written down."""

from __future__ import annotations

import copy
import logging
import math
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.model.segmenter import Segmenter, backbone_of
from segdeploy.progress import progress
from segdeploy.run_folder import Skip
from segdeploy.train.ema import build_ema
from segdeploy.train.ends import AskedError, ends_in_one_line
from segdeploy.train.examples import Extremes
from segdeploy.train.feed import Feed
from segdeploy.train.freeze import freeze_configured, rest
from segdeploy.train.kept import Kept
from segdeploy.train.learner import build_learner, with_shared_statistics
from segdeploy.train.losses import build_loss
from segdeploy.train.memory import keep_freed_memory
from segdeploy.train.optim import build_optimizer
from segdeploy.train.pace import Pace
from segdeploy.train.plan import make_plan
from segdeploy.train.profile import Profile
from segdeploy.train.randomness import Randomness
from segdeploy.train.record import Record, training_set_metadata
from segdeploy.train.schedule import Plateau, learning_rate
from segdeploy.train.sharding import is_sharded, shard
from segdeploy.train.signals import StopRequest
from segdeploy.train.state import State
from segdeploy.train.step import Step, half_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.scan import ScanReport
    from segdeploy.data.table import Part, Sample
    from segdeploy.metrics import Scores
    from segdeploy.model.spec import ModelSpec
    from segdeploy.train.distributed import Processes

log = logging.getLogger(__name__)

_NOTHING = Skip(description=True, statistics=True, progress=True, log=True, pictures=True)


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


class Training:
    """One run in memory; of several processes each has one, and the first one writes."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        model: Path,
        spec: ModelSpec,
        segmenter: Segmenter,
        parts: dict[Part, list[Sample]],
        report: ScanReport,
        processes: Processes,
        skip: Skip,
    ) -> None:
        trainer = config.trainer
        self.config, self.run, self.folder, self.spec = config, run, model, spec
        self.parts, self.report, self.skip, self.processes = parts, report, skip, processes
        self.device = processes.device
        self.profile = Profile(self.device)
        data = Dataset(parts["training"], spec, config.preprocessing.cache, processes.neighbours)
        log.info("%s", data.describe_cache())
        self.plan = make_plan(len(data), processes.size, trainer)
        if self.plan.batches * processes.size > 1:
            log.info("each step takes %d samples: %s", self.plan.effective_batch_size, self.plan.describe())
        whole = copy.deepcopy(segmenter) if is_sharded(trainer, processes) else None
        segmenter = segmenter.to(self.device).to(memory_format=torch.channels_last)
        processes.same(list(segmenter.state_dict().values()))
        self.model = with_shared_statistics(segmenter, trainer, processes)
        self.frozen = freeze_configured(self.model, config)
        self.loss = build_loss(config.mask.loss, report).to(self.device)
        self.ema = build_ema(self.model, trainer.ema_decay) if trainer.ema_decay else None
        self.half = half_of(trainer, self.device)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.half is torch.float16)
        augment = Augment(config.image.augmentation, spec.preprocessing, report)
        self.feed = Feed(data, augment, self.device, self.profile)
        size = (spec.preprocessing.height, spec.preprocessing.width)
        learner = build_learner(self.model, trainer, processes, size)
        if self.ema is not None and whole is not None:
            shard(self.ema.module, processes)
        optimizer = build_optimizer(self.model, trainer)
        self.step = Step(
            learner,
            self.model,
            self.loss,
            optimizer,
            scaler,
            self.ema,
            trainer,
            self.half,
            processes,
            self.profile,
        )
        randomness = Randomness(trainer.seed, processes, self.plan.batches, self.device)
        plateau = Plateau.of(trainer.learning_rate_scheduler)
        self.state = State(self.model, self.ema, optimizer, scaler, plateau, randomness, self.plan)
        self.stop = StopRequest()
        self.kept = Kept(self.model, self.ema, whole, config, spec, self.loss, parts, processes, self.stop)
        self.trained = False
        """Whether all epochs are done; then the best weights may stand in the model, and its state is kept as it is."""
        self._resumed = False
        self.pace = Pace(trainer.epochs, self.plan.steps, self.plan.effective_batch_size)

    def load(self) -> None:
        """Take up the state of the checkpoint."""
        self.state.load(self.folder)
        self._resumed = True

    def save(self) -> None:
        """Write the checkpoint; every process has to call this."""
        if not self.skip.progress:
            started = time.perf_counter()
            self.state.save(self.folder, self.config.trainer.epochs)
            self.profile.add("checkpoint", time.perf_counter() - started)

    def go(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        """Train to the last epoch, score the best weights on the test part, write the model card.

        Raises:
            StoppedError, SegdeployError: see `ends_in_one_line`.
        """
        schedule = self.config.trainer.learning_rate_scheduler
        if schedule.decay == "cosine" and schedule.t_0 is None:
            total = self.config.trainer.epochs * self.plan.steps
            log.info("learning rate: cosine, once down over all %d steps; Ludwig restarts every t_0 steps", total)
        # Where no state is kept, a signal that waits would only cost time.
        stop = nullcontext() if self.skip.progress else self.stop
        with keep_freed_memory(), stop, ends_in_one_line(self):
            return self._go(on_epoch)

    def _go(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> TrainResult:
        done, first = self.state.progress, self.processes.first
        if not self._resumed:
            self.save()
        with self._record() as record:
            while done.epoch < self.config.trainer.epochs and not self.stalled:
                row, scores, extremes = self.epoch()
                record.add(row, scores, extremes, best=done.best_epoch == row["epoch"])
                self.save()
                self._write_profile()
                if on_epoch is not None and first:
                    on_epoch(row)
            self.trained = True
            knows = self.processes.once(lambda: record.knows_best)
            if self.parts["test"] or not knows:
                self.kept.load(self.folder)
            if not knows:
                record.add_best(done.best_epoch, self.kept.score("validation", boundary=False).scores)
            if self.parts["test"]:
                record.add_test(self.kept.score("test", boundary=True).to_dict(self.spec)[self.spec.mask_name])
            if first:
                record.write_card(self.report, {part: len(samples) for part, samples in self.parts.items()})
        if self.profile.steps:
            log.info("time: %s", self.profile.line())
        return TrainResult(
            run=self.run,
            model=self.folder,
            best_mean_iou=done.best_mean_iou,
            best_epoch=done.best_epoch,
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
        return 0 < patience <= self.state.progress.epoch - self.state.progress.best_epoch

    def epoch(self) -> tuple[dict[str, Any], Scores, Extremes]:
        """Train once through the data, or through what is left of it, validate, keep the best weights."""
        done = self.state.progress
        number = done.epoch + 1
        self._train(number)
        loss = float(self.state.losses[0] / self.plan.steps)
        started = time.perf_counter()
        self.kept.collect()
        extremes = Extremes(self.processes.rank, self.processes.size)
        # Boundaries cost time and choose nothing here.
        result = self.kept.score("validation", boundary=False, on_scored=extremes.add)
        scores, checked = result.scores, result.loss
        if scores.mean_iou > done.best_mean_iou:
            extremes = Extremes.joined(self.processes.gather(extremes))  # of the best epoch alone they are shown
            done.best_mean_iou, done.best_epoch = scores.mean_iou, number
            self.kept.save(self.folder, number, scores.mean_iou)
        trained = done.seconds
        self.state.end_epoch()
        validated = time.perf_counter() - started
        self.profile.add("validation", validated)
        row = {
            "epoch": number,
            "step": done.step,
            "learning_rate": self._rate(done.step - 1),
            "training_loss": round(loss, 6),
            "validation_loss": None if checked is None or not math.isfinite(checked) else round(checked, 6),
            "validation_mean_iou": round(scores.mean_iou, 6),
            "validation_pixel_accuracy": round(scores.pixel_accuracy, 6),
            "training_images_per_second": round(self.plan.steps * self.plan.effective_batch_size / trained, 3),
            "seconds": round(trained + validated, 3),
        }
        schedule = self.config.trainer.learning_rate_scheduler
        watched = row.get(f"{schedule.reduce_eval_split}_{schedule.reduce_eval_metric}")
        self.state.plateau.observe(math.nan if watched is None else watched)
        return row, scores, extremes

    def _train(self, number: int) -> None:
        trainer, plan, done = self.config.trainer, self.plan, self.state.progress
        order = self.state.begin_epoch()
        self.kept.make_room()
        self.model.train()
        if trainer.frozen_patterns:
            rest(self.model)
        if self.frozen:
            backbone_of(self.model.encoder).eval()
        left = plan.parts(order, self.processes.rank)[done.batches :]

        before = done.batches  # of a run that goes on within an epoch

        def note() -> str:
            loss = float(self.state.losses[0]) / max(1, done.batches)
            return self.pace.note(done.batches - before, loss, self._rate(done.step), done.best_mean_iou)

        self.pace.begin(number)
        with (
            progress(f"epoch {number}/{trainer.epochs}", note) as show,
            closing(self.feed(left, self.state.randomness.streams)) as batches,
        ):
            for _ in left:
                started = time.perf_counter()
                self.profile.begin_step()

                losses = self.step(batches, plan.batches, self._rate(done.step), asked=self.stop.signal is not None)
                self.state.losses += losses.values
                done.batches += 1
                done.step += 1
                done.seconds += time.perf_counter() - started
                show(done.batches, plan.steps)
                # Several processes stop after the same step: the one by which all of them know.
                if losses.asked if self.processes.size > 1 else self.stop.signal is not None:
                    raise AskedError
                if plan.is_checkpoint(done.batches, trainer):
                    self.save()
        self.profile.read()

    def _rate(self, step: int) -> float:
        trainer = self.config.trainer
        total = trainer.epochs * self.plan.steps
        rate = learning_rate(step, total, trainer.peak_learning_rate, trainer.learning_rate_scheduler)
        return rate * self.state.plateau.factor

    def _record(self) -> Record:
        """What is written and told; the other processes keep the numbers in memory alone."""
        config, skip = self.config, self.skip
        if not self.processes.first:
            silent = config.trainer.model_copy(update={"trackers": ()})
            config, skip = config.model_copy(update={"trainer": silent}), _NOTHING
        return Record(self.run, self.folder, config, self.spec, self.state.progress.epoch, skip)

    def _write_profile(self) -> None:
        if self.processes.first and not self.skip.statistics:
            about = {"device": str(self.device), "processes": self.processes.size} | self.profile.to_dict()
            files.write_json(self.run / place.PROFILE_FILE, about)
