"""The network as it is trained: all maps at once, shared between processes, compiled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segdeploy.errors import ConfigError
from segdeploy.train.sharding import is_sharded, shard

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.config.trainer import Trainer
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.train.distributed import Processes

log = logging.getLogger(__name__)


class Learner(nn.Module):
    """The segmenter as it is trained: `forward` gives the logits of all maps."""

    def __init__(self, segmenter: Segmenter, *, upsample: bool) -> None:
        super().__init__()
        self.segmenter, self.upsample = segmenter, upsample

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[tuple[float, Tensor], ...]]:
        """(N, 3, H, W) -> logits, and the weight and logits of each auxiliary map."""
        return self.segmenter.forward_aux(image, upsample=self.upsample)


def build_learner(segmenter: Segmenter, config: Trainer, processes: Processes, size: tuple[int, int]) -> nn.Module:
    """`segmenter` ready to train: what is called with images (N, 3, H, W). Build the optimiser after it.

    Args:
        segmenter: on the device, with the same weights in every process.
        config: the `trainer` section.
        processes: who trains it together; their gradients are averaged.
        size: height and width of images that it can take.
    """
    learner: nn.Module = Learner(segmenter, upsample=config.loss_at == "image")
    if is_sharded(config, processes):
        shard(learner, processes)
    elif processes.size > 1:
        on_cuda = processes.device.type == "cuda"
        learner = DistributedDataParallel(
            learner,
            device_ids=[processes.device] if on_cuda else None,
            find_unused_parameters=_has_unused(learner, size, processes.device),
        )
    return cast("nn.Module", torch.compile(learner)) if config.compile else learner


def _has_unused(learner: nn.Module, size: tuple[int, int], device: torch.device) -> bool:
    """Whether a parameter has no part in the logits: a process would wait for its gradient. Nothing is changed."""
    training = learner.training
    learner.eval()
    logits, more = learner(torch.zeros(1, 3, *size, device=device))
    (logits.sum() + sum(x.sum() for _, x in more)).backward()
    unused = any(p.requires_grad and p.grad is None for p in learner.parameters())
    learner.zero_grad(set_to_none=True)
    learner.train(training)
    return unused


def check_sync_batchnorm(config: Trainer, processes: Processes) -> None:
    """Raises ConfigError where statistics over all processes are asked for and torch does not have them."""
    if config.sync_batchnorm and processes.size > 1 and processes.device.type != "cuda":
        raise ConfigError(
            "trainer.sync_batchnorm: torch has it on CUDA alone; leave it out, so that each process on a CPU takes "
            "the statistics of its own batches"
        )


def with_shared_statistics(segmenter: Segmenter, config: Trainer, processes: Processes) -> Segmenter:
    """`segmenter` with batch norms over all processes' batches, where that is wanted; their state keeps its names."""
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in segmenter.modules())
    if processes.size == 1 or not norms or config.sync_batchnorm is False:
        return segmenter
    if processes.device.type != "cuda":
        log.info("batch norm: each process takes the statistics of its own batches; torch shares them on CUDA alone")
        return segmenter
    from timm import layers  # torch's own conversion would lose the activations in timm's norms

    convert: Any = layers
    return cast("Segmenter", convert.convert_sync_batchnorm(segmenter))
