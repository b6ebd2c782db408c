"""One network in parts: each process keeps a share of every weight, gradient and slot of the optimiser (FSDP2; Zhao et
al. 2023, https://arxiv.org/abs/2304.11277)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from segdeploy.checkpoint import whole
from segdeploy.errors import ConfigError
from segdeploy.train.optim import OF_TORCH

if TYPE_CHECKING:
    from segdeploy.config.trainer import Trainer
    from segdeploy.train.distributed import Processes

SMALLEST = 1 << 20
"""Parameters of a block whose weights are fetched by themselves; for less, a message costs more than it saves."""


def is_sharded(config: Trainer, processes: Processes) -> bool:
    """Whether the processes share the network out among them."""
    return config.sharding and processes.size > 1


def check_sharding(config: Trainer, processes: Processes) -> None:
    """Raises ConfigError where `trainer.sharding` meets what looks at a whole weight, or was never tried with it."""
    if not is_sharded(config, processes):
        return
    if config.optimizer.type not in OF_TORCH:
        raise ConfigError(
            f"trainer.sharding: each process has a part of a weight, and optimizer {config.optimizer.type} may need "
            f"all of it; choose one of {', '.join(OF_TORCH)}"
        )
    if config.use_mixed_precision in (True, "fp16"):
        raise ConfigError("trainer.sharding: FP16 scales its loss for the whole network; set use_mixed_precision: bf16")
    if config.batch_size == "auto":
        raise ConfigError("trainer.sharding: batch_size auto would try the whole network on one device; give a number")
    if config.compile:
        raise ConfigError("trainer.sharding: does not go together with trainer.compile; set one of them to false")


def shard(network: nn.Module, processes: Processes) -> None:
    """Leave each process its share of the parameters of `network`, block by block.

    Its blocks fetch the whole of their weights while they run. Norms' statistics stay whole. Call it before the
    optimiser is built; only calls of `network` itself work afterwards, in all processes equally often.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other; images bring channels_last along
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for block in _blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The large ones among modules that are called one after the other."""
    found = []
    for child in module.children():
        inner = _blocks(child)
        found += inner
        in_row = isinstance(module, (nn.ModuleList, nn.Sequential))
        holder = isinstance(child, (nn.ModuleList, nn.ModuleDict))  # never called itself
        if in_row and not inner and not holder and sum(p.numel() for p in child.parameters()) >= SMALLEST:
            found.append(child)
    return found


@torch.no_grad()
def gather(target: nn.Module, source: nn.Module) -> None:
    """Fill a whole network with the weights of one that is shared out; every process has to call this."""
    own = target.state_dict()
    for name, tensor in source.state_dict().items():
        own[name].copy_(whole(tensor))
