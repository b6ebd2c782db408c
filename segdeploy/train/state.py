"""Everything that changes while a run trains, and its file: what --resume goes on from, bit for bit on a CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.checkpoint import load_training_state, save_training_state, training_state
from segdeploy.errors import ModelError, SegdeployError
from segdeploy.train.schedule import Plateau

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from segdeploy.train.plan import Plan
    from segdeploy.train.randomness import Randomness

_SUMS = "losses"
_RANDOM = "random."


@dataclass(slots=True)
class Progress:
    """How far a run is; JSON-ready."""

    epoch: int = 0
    """Epochs that are done, validation included."""
    batches: int = 0
    """Steps that are done of the epoch under way."""
    step: int = 0
    """Steps that are done in all."""
    best_mean_iou: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    """Spent on training in the epoch under way."""
    scaler: dict[str, Any] = field(default_factory=dict)
    plateau: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, int] = field(default_factory=dict)
    """`Plan` of the steps; a state within an epoch can only go on with the same one."""


class State:
    """A run's tensors and its progress.

    The file holds the weights, their average, the optimiser's state and, within an epoch, the sums of its losses and
    the streams of random numbers. Where an epoch ends, the next one's are made from its number.
    """

    def __init__(
        self,
        model: nn.Module,
        ema: nn.Module | None,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        plateau: Plateau,
        randomness: Randomness,
        plan: Plan,
    ) -> None:
        self.model, self.ema, self.optimizer, self.scaler = model, ema, optimizer, scaler
        self.plateau, self.randomness, self.plan = plateau, randomness, plan
        self.progress = Progress()
        self.losses = torch.zeros(2)
        """(2,) float32: sums over the epoch's steps, see `step.Losses`."""
        self._random: dict[str, Tensor] = {}

    def save(self, folder: Path, epochs: int) -> None:
        """Write the checkpoint, and for people how far it is; every process has to call this, the first one writes.

        Raises:
            SegdeployError: there is no room for it; the file before it is still there.
        """
        tensors: dict[str, Tensor] = {}
        if self.progress.batches:
            streams = self.randomness.state()
            tensors = {_SUMS: self.losses} | {f"{_RANDOM}{name}": t for name, t in streams.items()}
        first = self.randomness.processes.first
        held = training_state(self.model, self.ema, self.optimizer, keep=first)
        if not first:
            return
        self.progress.scaler = self.scaler.state_dict()
        self.progress.plateau = asdict(self.plateau)
        self.progress.plan = asdict(self.plan)
        about = asdict(self.progress)
        file = folder / place.LATEST_FILE
        try:
            save_training_state(file, held, about, tensors)
            shown = {k: v for k, v in about.items() if k not in ("scaler", "plateau", "plan")}
            files.write_json(folder / place.PROGRESS_FILE, shown | {"epochs": epochs})
        except SegdeployError as e:
            kept = "the checkpoint before it is whole; make room, and go on" if file.is_file() else "nothing was saved"
            raise SegdeployError(f"{e}; {kept}{' with --resume' if file.is_file() else ''}") from e

    def load(self, folder: Path) -> None:
        """Take up a checkpoint.

        Raises:
            ModelError: not one of this model, or one within an epoch whose steps were cut in another way.
        """
        file = folder / place.LATEST_FILE
        saved, tensors = load_training_state(file, self.model, self.ema, self.optimizer)
        known = Progress()
        self.progress = Progress(**{name: saved.get(name, value) for name, value in asdict(known).items()})
        if self.scaler.is_enabled() and self.progress.scaler:  # a run that began on a CPU has none
            self.scaler.load_state_dict(self.progress.scaler)
        if self.progress.plateau:  # a run of an earlier version has none
            self.plateau = Plateau(**self.progress.plateau)
        plan = asdict(self.plan)
        if self.progress.plan in ({}, plan):
            pass
        elif self.progress.batches:
            was, now = self.progress.plan, plan
            raise ModelError(
                f"{file}: was saved within an epoch by {was['processes']} processes with {was['batches']} batches of "
                f"{was['share'] // was['batches']} samples each; found {now['processes']} with {now['batches']} of "
                f"{now['share'] // now['batches']}; go on with as many as before"
            )
        else:
            self.progress.step = self.progress.epoch * self.plan.steps
        if self.progress.batches:
            self.losses = tensors[_SUMS]
            self._random = {n.removeprefix(_RANDOM): t for n, t in tensors.items() if n.startswith(_RANDOM)}

    def begin_epoch(self) -> list[int]:
        """The order of the samples in the epoch under way; its random numbers go on where they were."""
        order = self.randomness.begin(self.progress.epoch + 1, self.plan.samples)
        if self._random:
            self.randomness.restore(self._random)
            self._random = {}
        elif not self.progress.batches:
            self.losses = torch.zeros(2)
        return order

    def end_epoch(self) -> None:
        """The epoch under way is done."""
        self.progress.epoch += 1
        self.progress.batches, self.progress.seconds = 0, 0.0
