"""How an epoch's samples become steps: which samples each process takes, in which batches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.config.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Plan:
    """One epoch: `steps` steps of `share` samples for each of `processes`, taken in `batches` batches.

    What is left at the end of an epoch is less than a step and waits for the next one: a short last batch would upset
    batch norm. All processes take equally many samples, so that the mean of their gradients is the whole batch's.
    """

    samples: int
    steps: int
    processes: int
    share: int
    batches: int

    @property
    def effective_batch_size(self) -> int:
        """Samples per step, over all processes."""
        return self.share * self.processes

    def parts(self, order: Sequence[int], rank: int) -> list[list[list[int]]]:
        """For each step, for each of its batches, the samples that process `rank` takes; sizes differ by one at most.

        The batches of all processes, one process after the other, cut the step as one process with as many batches
        would cut it.
        """
        found = []
        for step in range(self.steps):
            start = step * self.effective_batch_size + rank * self.share
            edges = [start + i * self.share // self.batches for i in range(self.batches + 1)]
            found.append([list(order[a:b]) for a, b in itertools.pairwise(edges)])
        return found

    def describe(self) -> str:
        """How a step is shared."""
        return f"processes x batches x samples = {self.processes} x {self.batches} x {-(-self.share // self.batches)}"

    def is_checkpoint(self, done: int, config: Trainer) -> bool:
        """Whether the state is saved after `done` steps (from 1) of an epoch; after its last one it always is."""
        if done == self.steps:
            return False  # that is after the validation
        if config.steps_per_checkpoint:
            return done % config.steps_per_checkpoint == 0
        each = config.checkpoints_per_epoch
        return done * each // self.steps > (done - 1) * each // self.steps


def make_plan(samples: int, processes: int, config: Trainer) -> Plan:
    """The plan for `samples` training samples and a number of processes.

    Raises:
        ConfigError: sizes that do not fit each other, or fewer samples than processes.
    """
    size, whole, parts = config.samples_per_step, config.effective_batch_size, config.gradient_accumulation_steps
    if samples < processes:
        raise ConfigError(f"{samples} training samples are too few for {processes} processes; start fewer")
    if whole == "auto":
        whole = size * processes * (1 if parts == "auto" else parts)
    elif whole % processes:
        raise ConfigError(f"trainer.effective_batch_size {whole} is no multiple of the {processes} processes")
    elif parts != "auto" and whole != size * parts * processes:
        raise ConfigError(
            f"trainer.effective_batch_size {whole} is not batch_size {size} x gradient_accumulation_steps {parts} x "
            f"{processes} processes; leave one of them out"
        )
    share = min(whole, samples) // processes
    return Plan(samples, samples // (share * processes), processes, share, -(-share // size))
