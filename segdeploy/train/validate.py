"""Scores and loss of a table from one pass of the network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from segdeploy.data.resize import resize_mask
from segdeploy.evaluate import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from segdeploy.data.table import Sample
    from segdeploy.evaluate import At, EvalResult, Example, OnScored
    from segdeploy.model.spec import ModelSpec, Preprocessing
    from segdeploy.runtime.torch_runner import TorchRunner


def evaluate_with_loss(
    runner: TorchRunner,
    loss: nn.CrossEntropyLoss,
    samples: Sequence[Sample],
    spec: ModelSpec,
    *,
    batch_size: int = 1,
    at: At = "mask",
    boundary: bool = True,
    progress: Callable[[int, int], None] | None = None,
    on_labels: Callable[[Example, NDArray[np.uint8]], None] | None = None,
    on_scored: OnScored | None = None,
) -> EvalResult:
    """`segdeploy.evaluate.evaluate`, and the mean loss beside its scores; the network runs once.

    The loss compares the logits with the mask at the network's size, whatever `at` says. It is `loss`'s mean over
    the labelled pixels of all samples, as if they were one batch; as in training, a class of weight 0 has no label.

    Args:
        runner: of the `torch` backend, as `open_runner(bundle, "torch")` gives it.
        loss: see `segdeploy.train.losses.build_loss`.
        samples, spec, batch_size, at, boundary, progress, on_labels, on_scored: see `evaluate`.

    Raises:
        DataError: see `segdeploy.evaluate.read_examples`.
    """
    mean = _MeanLoss(loss, runner.device, spec.preprocessing)

    def take(example: Example, labels: NDArray[np.uint8]) -> None:
        mean.add(example, labels)
        if on_labels is not None:
            on_labels(example, labels)

    hook = runner.module.segmenter.register_forward_hook(mean.take)
    try:
        result = evaluate(
            runner,
            samples,
            spec,
            batch_size=batch_size,
            at=at,
            boundary=boundary,
            progress=progress,
            on_labels=take,
            on_scored=on_scored,
        )
    finally:
        hook.remove()
    return replace(result, loss=mean.value)


class _MeanLoss:
    """A cross-entropy's mean over many images, in which each pixel weighs as much as its class."""

    def __init__(self, loss: nn.CrossEntropyLoss, device: torch.device, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.ignore = loss.ignore_index
        self.weight = None if loss.weight is None else loss.weight.to(device)
        self.sum_of = nn.CrossEntropyLoss(self.weight, None, self.ignore, None, "sum", loss.label_smoothing)
        self.images: Iterator[Tensor] = iter(())
        self.sums: list[Tensor] = []  # of each image: its losses, its weights; on the device, so that nothing waits

    def take(self, segmenter: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """For `register_forward_hook`: the logits (N, C, H, W) of a batch, whose images come to `add` in turn."""
        self.images = iter(logits.float().unbind())

    @torch.inference_mode()
    def add(self, example: Example, labels: NDArray[np.uint8]) -> None:
        """For `on_labels` of `evaluate`."""
        logits = next(self.images)[None]
        mask = torch.tensor(resize_mask(example.mask, self.preprocessing), dtype=torch.long, device=logits.device)[None]
        weights = (mask != self.ignore).float()
        if self.weight is not None:
            weights *= self.weight[mask.where(weights > 0, 0)]
            mask = mask.where(weights > 0, self.ignore)
        self.sums.append(torch.stack([self.sum_of(logits, mask), weights.sum()]))

    @property
    def value(self) -> float:
        """The mean so far; NaN where no pixel weighs anything."""
        if not self.sums:
            return math.nan
        losses, weights = torch.stack(self.sums).cpu().double().sum(0).tolist()
        return losses / weights if weights else math.nan
