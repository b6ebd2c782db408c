"""Scores and loss of a table from one pass of the network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segdeploy.classes import IGNORE
from segdeploy.data.resize import resize_mask
from segdeploy.evaluate import evaluate
from segdeploy.metrics import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from segdeploy.data.table import Sample
    from segdeploy.evaluate import At, EvalResult, Example, OnScored
    from segdeploy.model.spec import ModelSpec, Preprocessing
    from segdeploy.runtime.torch_runner import TorchRunner
    from segdeploy.train.losses import Objective


def evaluate_with_loss(
    runner: TorchRunner,
    loss: Objective,
    samples: Sequence[Sample],
    spec: ModelSpec,
    *,
    batch_size: int = 1,
    at: At = "mask",
    boundary: bool = True,
    progress: Callable[[int, int], None] | None = None,
    on_labels: Callable[[Example, NDArray[np.uint8]], None] | None = None,
    add_up: Callable[[Sequence[Tensor]], list[Tensor]] | None = None,
    on_scored: OnScored | None = None,
) -> EvalResult:
    """`segdeploy.evaluate.evaluate`, and the mean loss beside its scores; the network runs once.

    The loss compares the logits with the mask at the network's size, whatever `at` says. It is that of all samples
    as one batch; as in training, a class of weight 0 has no label.

    Args:
        runner: of the `torch` backend, as `open_runner(bundle, "torch")` gives it.
        loss: see `segdeploy.train.losses.build_loss`.
        samples, spec, batch_size, at, boundary, progress, on_labels, on_scored: see `evaluate`.
        add_up: where several processes share the table, sums tensors on the CPU over them; the counts stay exact.

    Raises:
        DataError: see `segdeploy.evaluate.read_examples`.
    """
    mean = _MeanLoss(loss.to(runner.device), runner.device, spec.preprocessing)

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
    return replace(result, loss=mean.value) if add_up is None else _of_all(result, mean, add_up)


def _of_all(result: EvalResult, mean: _MeanLoss, add_up: Callable[[Sequence[Tensor]], list[Tensor]]) -> EvalResult:
    """The result of all processes from one process's share."""
    scores = result.scores
    near = np.zeros((2, len(scores.confusion)), np.int64) if scores.boundary is None else scores.boundary
    counts = [torch.from_numpy(scores.confusion), torch.from_numpy(near), torch.tensor(result.images)]
    confusion, near_all, images, totals = add_up([*counts, mean.totals()])
    boundary = None if scores.boundary is None else near_all.numpy()
    return replace(result, scores=Scores(confusion.numpy(), boundary), images=int(images), loss=mean.of(totals))


class _MeanLoss:
    """The loss of many images, as if they were one batch."""

    def __init__(self, loss: Objective, device: torch.device, preprocessing: Preprocessing) -> None:
        self.loss, self.device, self.preprocessing = loss, device, preprocessing
        self.images: Iterator[Tensor] = iter(())
        self.parts: list[Tensor] = []  # (2, K) of each image; on the device, so that nothing waits

    def take(self, segmenter: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        """For `register_forward_hook`: the logits (N, C, H, W) of a batch, whose images come to `add` in turn."""
        self.images = iter(logits.float().unbind())

    @torch.inference_mode()
    def add(self, example: Example, labels: NDArray[np.uint8]) -> None:
        """For `on_labels` of `evaluate`."""
        logits = next(self.images)[None]
        mask = torch.tensor(resize_mask(example.mask, self.preprocessing), dtype=torch.long, device=logits.device)
        self.parts.append(torch.stack(self.loss.parts(logits, mask[None])))

    @property
    def value(self) -> float:
        """The loss so far; NaN where nothing counts."""
        return self.of(self.totals())

    def totals(self) -> Tensor:
        """(2, K) float64 on the CPU: the sums and what they are divided by."""
        if not self.parts:
            nothing = torch.full((1, 1, 1), IGNORE, device=self.device)
            return torch.zeros(2, len(self.loss.weights(nothing)), dtype=torch.float64)
        return torch.stack(self.parts).cpu().double().sum(0)

    def of(self, totals: Tensor) -> float:
        """The loss that `totals`, also added up over processes, stand for."""
        sums, weights = totals.to(self.device)
        return float(self.loss.mean(sums, weights)) if weights.any() else math.nan
