"""The random numbers of an epoch, from (seed, epoch): order, augmentation, and torch's own for what networks drop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.train.distributed import Processes

_STRIDE = 0x9E3779B1
"""Between the streams of one epoch: torch's generator looks at 32 bits of a seed, and this odd number spreads them."""


class Randomness:
    """Streams that begin anew in each epoch, so that an epoch does not depend on the ones before it.

    Each batch of a step augments from a stream of its own. So two processes with a batch each draw what one process
    with two batches draws.

    Args:
        seed: of the run.
        processes: who trains.
        batches: how many batches a process takes per step.
        device: whose generator serves the network.
    """

    def __init__(self, seed: int, processes: Processes, batches: int, device: torch.device) -> None:
        self.seed, self.processes, self.device = seed, processes, device
        first = processes.rank * batches
        self._numbers = range(first, first + batches)
        self.streams: list[torch.Generator] = []
        """One for each batch of a step of this process, on the CPU."""

    def begin(self, epoch: int, samples: int) -> list[int]:
        """Start the streams of an epoch (from 1); returns the order of all samples, which is every process's."""
        base = self.seed * 1_000_003 + epoch
        torch.manual_seed(base + self.processes.rank * _STRIDE)
        first = torch.Generator().manual_seed(base)
        order: list[int] = torch.randperm(samples, generator=first).tolist()
        self.streams = [
            first if number == 0 else torch.Generator().manual_seed(base + number * _STRIDE) for number in self._numbers
        ]
        return order

    def state(self) -> dict[str, Tensor]:
        """Where the streams of all processes are; every process has to call this."""
        mine = {f"augment.{number}": s.get_state() for number, s in zip(self._numbers, self.streams, strict=True)}
        mine["torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            mine["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            name if name.startswith("augment.") else f"{name}.{rank}": state
            for rank, theirs in enumerate(self.processes.gather(mine))
            for name, state in theirs.items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; what it does not hold, such as another device's stream, stays as `begin` left it."""
        for number, stream in zip(self._numbers, self.streams, strict=True):
            stream.set_state(state[f"augment.{number}"])
        torch.set_rng_state(state[f"torch.{self.processes.rank}"])
        held = state.get(f"cuda.{self.processes.rank}")
        if held is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(held, self.device)
