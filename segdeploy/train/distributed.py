"""Several processes that train one model, as torchrun starts them; alone, every operation here is a matter of course.

    torchrun --nproc-per-node 2 -m segdeploy train -c config.yaml

Gloo joins processes on CPUs, NCCL those on CUDA devices, one for each. Process 0 alone checks the data, writes and
speaks. What all of them have to know is decided once, from sums over all of them, so that none waits for another that
has decided otherwise.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import torch
import torch.distributed as dist

from segdeploy.errors import MissingPartError, SegdeployError, first_line
from segdeploy.progress import quiet
from segdeploy.runtime.torch_runner import pick_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    Value = TypeVar("Value")

log = logging.getLogger(__name__)

_PATIENCE = timedelta(days=7)
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "broken pipe")
"""What torch's errors say where another process has gone."""


class LostProcessError(SegdeployError):
    """Another process of the same training ended, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among all that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    neighbours: int = 1
    """Processes on this machine."""

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def add_up_exactly(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Sums over all processes of tensors on the CPU, integers as integers."""
        return [self.add_up(v.to(self.device)).cpu() for v in values]

    def same(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with process 0's."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Value | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def once(self, work: Callable[[], Value], *, patient: bool = False) -> Value:
        """What `work` returns in process 0, in all of them; its SegdeployError too.

        The others wait for it as long as the processes' timeout says; `patient` ones as long as process 0 lives.
        """
        if self.size == 1:
            return work()
        found: list[tuple[Value | None, SegdeployError | None]] = [(None, None)]
        group = cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=_PATIENCE)) if patient else None
        if self.first:
            try:
                found = [(work(), None)]
            except SegdeployError as e:
                found = [(None, e)]
        dist.broadcast_object_list(found, 0, group=group)
        if group is not None:
            dist.destroy_process_group(group)
        value, error = found[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def said_once(self, error: SegdeployError) -> BaseException:
        """An error that all processes have, to be raised: in all but the first one the exit without a word."""
        return error if self.first else SystemExit(error.exit_code)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, all processes fail alike; process 0 alone says why."""
        try:
            yield
        except LostProcessError:
            raise
        except SegdeployError as e:
            if self.first:
                raise
            raise SystemExit(e.exit_code) from e


@contextmanager
def joined(device: str, timeout: float) -> Iterator[Processes]:
    """The processes that torchrun's environment variables tell of, joined while inside; else this one alone.

    Args:
        device: "auto", "cpu" or "cuda"; each process on a machine gets a CUDA device of its own.
        timeout: seconds after which a process that waits for another gives up.

    Raises:
        MissingPartError: see `pick_device`, or fewer devices than processes.
        LostProcessError: another process has gone; also inside, in place of torch's own errors.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(torch.device(pick_device(device)))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    place = torch.device(_device_of(device, local, neighbours))
    processes = Processes(place, rank, size, neighbours)
    if rank:
        logging.getLogger("segdeploy").setLevel(logging.ERROR)
    log.info("%d processes, this one on %s", size, place)
    with _one_line(processes, timeout), quiet(rank > 0):
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
        processes.gather(None)  # whoever is still on the way here would miss process 0, should that fail at once
        yield processes
        dist.destroy_process_group()  # after an error the others are gone, and their end would be waited for


def _device_of(wanted: str, local: int, neighbours: int) -> str:
    device = pick_device(wanted)
    if device == "cpu":
        return device
    if neighbours > torch.cuda.device_count():
        raise MissingPartError(
            f"{neighbours} processes on this machine, but torch finds {torch.cuda.device_count()} CUDA devices; "
            f"start fewer processes, or use --device cpu"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


@contextmanager
def _one_line(processes: Processes, timeout: float) -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:  # of which torch's errors of this kind are
        text = str(e).lower()
        if not isinstance(e, dist.DistError) and not any(word in text for word in _LOST):
            raise
        raise LostProcessError(
            f"process {processes.rank} of {processes.size} has lost another one, or waited {timeout:g} s for it "
            f"(trainer.distributed_timeout): {first_line(e)[:200]}; when all can run, go on with --resume"
        ) from e
