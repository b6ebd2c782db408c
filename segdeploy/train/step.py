"""One step: batches through the network, their gradients added up, the weights moved, their average too."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F

from segdeploy.train.clip import clip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.optim.swa_utils import AveragedModel

    from segdeploy.config.trainer import Trainer
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.train.distributed import Processes
    from segdeploy.train.losses import Objective
    from segdeploy.train.profile import Profile


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

    The loss is that of all samples of a step as one batch, whatever the number of batches and processes that share it:
    each gives sums, and they are divided by what all labels weigh together.

    The losses are read back before the optimiser moves the weights, so that a loss that is not finite finds them as
    they were. On CUDA that wait ends when the forward pass does, with the backward pass queued behind it: the device
    does not run dry. Whether another process was asked to stop comes by the same way.
    """

    def __init__(
        self,
        learner: nn.Module,
        model: Segmenter,
        loss: Objective,
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
        self.clipping = trainer.gradient_clipping
        self.upsample = trainer.loss_at == "image"
        self._sizes: dict[torch.Size, list[tuple[int, int]]] = {}
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
        taken = list(islice(batches, count))
        targets = [self._targets(batch) for batch in taken]
        # What the sums are divided by depends on the labels alone: all batches and processes know it beforehand.
        weights = torch.stack([torch.stack([self.loss.weights(y) for y in ys]) for ys in targets]).sum(0)
        weights = self.processes.add_up(weights)
        sums = torch.zeros(3, device=self.device)  # loss, loss with auxiliary maps, asked to stop
        sums[2] = float(asked)
        for batch, ys in zip(taken[:-1], targets, strict=False):
            with self._unshared():
                self._backward(self._forward(batch, ys, weights, sums))
        loss = self._forward(taken[-1], targets[-1], weights, sums)
        own = sums[1:2].clone()
        read = _Reading(torch.cat([self.processes.add_up(sums), own]))
        self._backward(loss)
        values = read.values()
        if not math.isfinite(float(values[1])):
            self._raise(taken, values[:2].tolist(), float(values[3]))
        self._before = taken
        self._update()
        return Losses(values[:2], bool(values[2] > 0))

    def _forward(self, batch: Batch, targets: list[Tensor], weights: Tensor, sums: Tensor) -> Tensor:
        """This batch's part of the step's loss; added to `sums`, without and with the auxiliary maps."""
        with autocast(self.device, self.half):
            logits, auxiliary = self.learner(batch.images)
        self.profile.mark("forward")
        last = len(targets) - 1  # one target for all maps, or one for each
        main = self.loss.mean(self.loss.parts(logits.float(), targets[0])[0], weights[0])
        loss = main
        for number, (share, more) in enumerate(auxiliary, 1):
            place = min(number, last)
            loss = loss + share * self.loss.mean(self.loss.parts(more.float(), targets[place])[0], weights[place])
        sums[:2] += torch.stack([main, loss]).detach()
        self.profile.mark("loss")
        return loss

    def _backward(self, loss: Tensor) -> None:
        # DistributedDataParallel takes the mean over the processes, and here are the parts of one sum.
        self.scaler.scale(loss * self.processes.size).backward()  # type: ignore[no-untyped-call]
        self.profile.mark("backward")

    def _targets(self, batch: Batch) -> list[Tensor]:
        """The masks at the size of each map's logits; one where all are as large as the image."""
        if self.upsample:
            return [batch.masks]
        size = batch.images.shape[-2:]
        if size not in self._sizes:
            self._sizes[size] = map_sizes(self.learner, batch.images[:1])
        return [scale_masks(batch.masks, s) for s in self._sizes[size]]

    def _unshared(self) -> Any:
        """Gradients stay here until the last batch; a module that is not shared has nothing to say on that."""
        learner = cast("Any", self.learner)
        if hasattr(learner, "set_requires_gradient_sync"):
            return _kept_back(learner)
        return learner.no_sync() if hasattr(learner, "no_sync") else nullcontext()

    def _update(self) -> None:
        if self.clipping.limits:
            self.scaler.unscale_(self.optimizer)
            clip(self.model.parameters(), self.clipping)
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


@contextmanager
def _kept_back(sharded: Any) -> Iterator[None]:
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)


class _Reading:
    """A small tensor on its way to the CPU; the device goes on meanwhile."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: Any = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._host = tensor.detach().clone()

    def values(self) -> Tensor:
        """It, once it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def half_of(config: Trainer, device: torch.device) -> torch.dtype | None:
    """The type that the network computes in where that is not float32."""
    if not config.use_mixed_precision or device.type != "cuda":
        return None
    return torch.bfloat16 if config.use_mixed_precision == "bf16" else torch.float16


def autocast(device: torch.device, half: torch.dtype | None) -> torch.autocast:
    """Mixed precision with `half_of`'s type inside; nothing where that is None."""
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


@torch.no_grad()
def map_sizes(learner: nn.Module, image: Tensor) -> list[tuple[int, int]]:
    """Height and width of the logits of each map for an image (1, 3, H, W).

    Args:
        learner: of `build_learner`, with the loss at the decoder; it stays as it is.
        image: anything.
    """
    learner = getattr(learner, "_orig_mod", learner)  # not worth a compilation
    modes = {module: module.training for module in learner.modules()}
    logits, more = learner.eval()(image)
    for module, mode in modes.items():
        module.training = mode
    return [(x.shape[-2], x.shape[-1]) for x in (logits, *(x for _, x in more))]


def scale_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (N, H, W) at another size: of each pixel there the nearest one to its middle."""
    # float32 holds class ids exactly.
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].long()
