"""One step: batches through the network, their gradients added up, the weights moved, their average too."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from segdeploy.train.reduction import mean_of, sum_and_weight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from segdeploy.config.trainer import Trainer
    from segdeploy.train.distributed import Processes
    from segdeploy.train.profile import Profile

    Outputs = tuple[Tensor, tuple[tuple[float, Tensor], ...]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the network at a time."""

    samples: tuple[int, ...]
    """Their places in the training part."""
    images: Tensor
    """(N, 3, H, W) float32, normalised, on the device."""
    masks: Tensor
    """(N, H, W) int64 class ids, 255 = ignore."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Of one step, over all processes, on the CPU."""

    values: Tensor
    """(2,) float32: the mean loss, and what was minimised, with the losses of the auxiliary maps."""
    asked: bool
    """Whether any process was asked to stop."""


class DivergedError(Exception):
    """A loss that is not finite; raised before the weights are touched.

    `batches` are this process's; `mine` is whether its own loss is not finite; `ruined` says that the weights were not
    finite to begin with, so that the step before, whose batches these are then, is the one to look at.
    """

    def __init__(self, batches: list[Batch], losses: list[float], *, mine: bool, ruined: bool) -> None:
        super().__init__("the loss is not finite")
        self.batches, self.losses, self.mine, self.ruined = batches, losses, mine, ruined


class Step:
    """Moves the weights once.

    The loss is a mean over all labelled pixels of a step, whatever the number of batches and processes that share it:
    each batch gives a sum and its weight. Gradients are those of sums over a reference weight, known after the first
    batch, and are put right once the weight of all is known. With one batch on one process nothing has to be put right.

    The losses are read back before the optimiser moves the weights, so that a loss that is not finite finds them as
    they were. On CUDA that wait ends when the forward pass does, with the backward pass queued behind it: the device
    does not run dry. Whether another process was asked to stop comes by the same way.
    """

    def __init__(
        self,
        learner: nn.Module,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        ema: AveragedModel | None,
        trainer: Trainer,
        half: torch.dtype | None,
        processes: Processes,
        profile: Profile,
    ) -> None:
        self.learner, self.model, self.loss, self.ema = learner, model, loss, ema
        self.optimizer, self.scaler, self.half = optimizer, scaler, half
        self.processes, self.profile, self.device = processes, profile, processes.device
        self.clip = trainer.gradient_clipping.clipglobalnorm
        self._before: list[Batch] = []

    def __call__(self, batches: Iterable[Batch], count: int, rate: float, *, asked: bool) -> Losses:
        """Take `count` batches at a learning rate.

        Args:
            batches: at least `count`; no more are taken.
            count: how many make up this process's share.
            rate: of the learning, before a group's own `lr_scale`.
            asked: whether this process was asked to stop.

        Raises:
            DivergedError: the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        taken: list[Batch] = []
        sums = torch.zeros(4, device=self.device)  # loss, loss with auxiliary maps, weight, asked to stop
        sums[3] = float(asked)
        reference = torch.ones((), device=self.device)
        read: _Reading | None = None
        coming = iter(batches)
        for number in range(count):
            batch = next(coming)
            taken.append(batch)
            last = number == count - 1
            with nullcontext() if last else self._unshared():
                with torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None):
                    outputs = self.learner(batch.images)
                self.profile.mark("forward")
                main, loss, weight = self._measure(outputs, batch.masks, whole=count * self.processes.size == 1)
                sums[:3] += torch.stack([main, loss, weight]).detach()
                if last:
                    own = sums[1].clone()
                    read = _Reading(torch.cat([self.processes.add_up(sums), own[None]]))
                if number == 0:
                    reference = count * (sums[2] if last else self.processes.add_up(weight.detach().clone()))
                    reference = torch.where(reference > 0, reference, 1.0)
                self.profile.mark("loss")
                # DistributedDataParallel takes the mean over the processes, and here are the parts of one sum.
                self.scaler.scale(loss * (self.processes.size / reference)).backward()
            self.profile.mark("backward")
        assert read is not None  # count is at least 1
        values, asking, own_loss = _means(read.values())
        if not math.isfinite(float(values[1])):
            self._raise(taken, values.tolist(), own_loss)
        self._before = taken
        if count > 1:
            factor = reference / torch.where(sums[2] > 0, sums[2], 1.0)
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(grads, factor)
        self._update()
        return Losses(values, asking)

    def _measure(self, outputs: Outputs, masks: Tensor, *, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of the last map, that of all maps, and the weight of both: sums, or, if `whole`, means of weight 1."""
        logits, auxiliary = outputs
        measure = mean_of if whole else sum_and_weight
        main, weight = measure(self.loss, logits.float(), masks_for(logits, masks))
        loss = main
        for share, more in auxiliary:
            value, own = measure(self.loss, more.float(), masks_for(more, masks))
            # A map of another size has another weight; its mean counts as the loss's does.
            loss = loss + share * (value if more.shape[-2:] == logits.shape[-2:] else value * (weight / own.clamp(1e-9)))
        return main, loss, weight

    def _unshared(self) -> Any:
        """Gradients stay here until the last batch; a module that is not shared has nothing to say on that."""
        return self.learner.no_sync() if hasattr(self.learner, "no_sync") else nullcontext()

    def _update(self) -> None:
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.profile.mark("optimizer")
        if self.ema is not None:
            self.ema.update_parameters(self.model)
            self.profile.mark("ema")

    def _raise(self, taken: list[Batch], losses: list[float], own: float) -> None:
        ruined = not all(bool(torch.isfinite(p).all()) for p in self.model.parameters())
        blamed = self._before if ruined and self._before else taken
        raise DivergedError(blamed, losses, mine=ruined or not math.isfinite(own), ruined=ruined)


class _Reading:
    """A small tensor on its way to the CPU; the device goes on meanwhile."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: Any = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = tensor.detach().clone()

    def values(self) -> Tensor:
        """It, once it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def _means(read: Tensor) -> tuple[Tensor, bool, float]:
    """Both losses of a step, whether a process was asked to stop, and the sum of this process's own losses."""
    loss, optimised, weight, asked, own = read
    means = torch.stack([loss, optimised]) / torch.where(weight > 0, weight, 1.0)
    return means, bool(asked > 0), float(own)


def masks_for(logits: Tensor, masks: Tensor) -> Tensor:
    """Masks (N, H, W) at the size of logits (N, C, h, w): the nearest pixel to each one's middle."""
    if logits.shape[-2:] == masks.shape[-2:]:
        return masks
    # float32 holds class ids exactly.
    return F.interpolate(masks[:, None].float(), logits.shape[-2:], mode="nearest-exact")[:, 0].long()
