"""The training curve as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segdeploy.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOSS, _IOU = "#b35806", "#2166ac"  # told apart with any colour vision


def write_curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draw both losses and the validation mean IoU over the epochs into a PNG."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["training_loss"] for row in history], color=_LOSS, marker=".", label="training loss")
    checked = [math.nan if (value := row.get("validation_loss")) is None else value for row in history]
    left.plot(epochs, checked, color=_LOSS, marker=".", linestyle="--", label="validation loss")
    left.legend(loc="lower left")
    left.set_xlabel("epoch")
    left.set_ylabel("loss", color=_LOSS)
    left.set_ylim(bottom=0)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = left.twinx()
    iou = [row["validation_mean_iou"] for row in history]
    right.plot(epochs, iou, color=_IOU, marker=".", label="validation mean IoU")
    right.set_ylabel("validation mean IoU", color=_IOU)
    right.set_ylim(0, 1)
    best = max(range(len(iou)), key=iou.__getitem__)
    right.annotate(
        f"{iou[best]:.3f}",
        (epochs[best], iou[best]),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        color=_IOU,
    )
    left.grid(alpha=0.3)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)
