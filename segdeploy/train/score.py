"""Scores of an opened model, with the loss where the model still knows it: torch weights in a run's model folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from segdeploy.config.load import read_run_config
from segdeploy.evaluate import At, EvalResult, evaluate
from segdeploy.run_folder import METADATA_FILE
from segdeploy.runtime.torch_runner import TorchRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle
    from segdeploy.data.table import Sample
    from segdeploy.evaluate import Example
    from segdeploy.runtime.runner import Runner


def score(
    opened: Bundle,
    runner: Runner,
    samples: Sequence[Sample],
    *,
    batch_size: int = 1,
    at: At = "mask",
    progress: Callable[[int, int], None] | None = None,
    on_labels: Callable[[Example, NDArray[np.uint8]], None] | None = None,
) -> EvalResult:
    """`segdeploy.evaluate.evaluate`; with the training's loss too, where torch runs a run's weights.

    Needs torch only where the runner does.

    Args:
        opened: what `runner` was opened from.
        runner, samples, batch_size, at, progress, on_labels: see `evaluate`.
    """
    config, file = read_run_config(opened.path), opened.path / METADATA_FILE
    if config is None or not file.is_file() or not isinstance(runner, TorchRunner):
        return evaluate(
            runner, samples, opened.spec, batch_size=batch_size, at=at, progress=progress, on_labels=on_labels
        )
    from segdeploy.train.losses import build_loss
    from segdeploy.train.record import report_of
    from segdeploy.train.validate import evaluate_with_loss

    loss = build_loss(config.mask.loss, report_of(json.loads(file.read_text()), opened.spec.classes))
    return evaluate_with_loss(
        runner, loss, samples, opened.spec, batch_size=batch_size, at=at, progress=progress, on_labels=on_labels
    )
