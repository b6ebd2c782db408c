"""Pixels of other samples of the batch: a box of one, or whole classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segdeploy.config.augmentation import lonely
from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from segdeploy.config.augmentation import Augmentation, CopyPaste, CutMix
    from segdeploy.data.scan import ScanReport


def check_mixing(steps: Sequence[Augmentation], batch_size: int) -> None:
    """ConfigError where a step takes pixels from another sample of the batch and there is none."""
    for step in steps:
        if said := lonely(step, batch_size):
            raise ConfigError(f"augmentation {said}")


def cut_mix(x: Tensor, y: Tensor, step: CutMix, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al. 2019) for masks: a box of another sample, with its labels and its ignored pixels.

    Args:
        x: (N, 3, H, W) images.
        y: (N, H, W) int64 labels.
        step: how often, and how large the box is.
        generator: on the CPU.
    """
    count, (height, width) = len(x), y.shape[1:]
    fires, partners = _draw(count, step.probability, generator)
    share = torch.rand(count, generator=generator) * (step.max - step.min) + step.min
    inside = []
    for side in (height, width):
        length = (share.sqrt() * side).round()
        start = (torch.rand(count, generator=generator) * (side - length + 1)).floor()
        along = torch.arange(side)
        inside.append((along >= start[:, None]) & (along < (start + length)[:, None]))  # (N, side)
    if not fires.any():
        return x, y
    rows, columns = (inside[0] & fires[:, None]).to(x.device), inside[1].to(x.device)
    return _put(x, y, rows[:, :, None] & columns[:, None], partners)


def copy_paste(
    x: Tensor, y: Tensor, step: CopyPaste, pasted: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Simple Copy-Paste (Ghiasi et al. 2021) by classes: the pixels of `pasted` classes of another sample.

    Pixels without a label are never pasted; where pasted pixels fall on some, these get a label.

    Args:
        x: (N, 3, H, W) images.
        y: (N, H, W) int64 labels.
        step: how often.
        pasted: the ids of the classes.
        generator: on the CPU.
    """
    fires, partners = _draw(len(x), step.probability, generator)
    if not fires.any():
        return x, y
    table = torch.zeros(256, dtype=torch.bool)
    table[list(pasted)] = True
    shown = table.to(y.device)[y[partners.to(y.device)]]
    return _put(x, y, shown & fires.to(y.device)[:, None, None], partners)


def _draw(count: int, probability: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(N,) bool: which samples are changed; (N,) int64: for each another sample, or itself where it is alone."""
    fires = torch.rand(count, generator=generator) < probability
    step = torch.randint(1, max(count, 2), (count,), generator=generator)
    return fires, (torch.arange(count) + step) % count


def _put(x: Tensor, y: Tensor, where: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    """The partners' pixels `where` (N, H, W) says so."""
    partners = partners.to(x.device)
    return torch.where(where[:, None], x[partners], x), torch.where(where, y[partners], y)


def pasted_classes(step: CopyPaste, report: ScanReport) -> list[int]:
    """The ids of the classes that the step pastes.

    Raises:
        ConfigError: a name that is no class, or no class is rare enough.
    """
    names = report.classes.names
    if step.classes != "rare":
        if unknown := [name for name in step.classes if name not in names]:
            raise ConfigError(
                f"random_copy_paste.classes: no class is named {unknown[0]!r}; the classes are {', '.join(names)}"
            )
        return [names.index(name) for name in step.classes]
    shares = report.pixels / max(1, int(report.pixels.sum()))
    rare = [i for i, share in enumerate(shares) if 0 < share <= step.max_frequency]
    if not rare:
        least = min((i for i, share in enumerate(shares) if share), key=lambda i: shares[i], default=0)
        raise ConfigError(
            f"random_copy_paste: no class has at most {step.max_frequency:g} of the labelled training pixels; the "
            f"rarest is {names[least]} with {shares[least]:.3g}; raise max_frequency or name the `classes`"
        )
    return rare
