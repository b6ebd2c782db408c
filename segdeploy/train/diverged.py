"""What a run that diverged leaves behind: the batch that its loss was not finite on, and the weights before that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.checkpoint import save_tensors, whole_tensors
from segdeploy.errors import SegdeployError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec
    from segdeploy.train.distributed import Processes
    from segdeploy.train.step import Batch, DivergedError

_COLUMNS = 4


def report_divergence(
    run: Path,
    error: DivergedError,
    model: nn.Module,
    spec: ModelSpec,
    samples: Sequence[Sample],
    processes: Processes,
    where: dict[str, int],
    *,
    mixed: bool,
) -> SegdeployError:
    """Write RUN/diverged and return the one line that ends the run.

    The folder holds batch.safetensors - `images` (N, 3, H, W) float32, normalised and augmented; `masks` (N, H, W)
    uint8; `model.*`, the parameters before the step - with losses and files' names in its header, the latter also in
    batch.json; and batch.png, a row of images above each row of their masks. Of several processes, each whose own loss
    was not finite writes; process 1 into batch_1.*, and so on.

    Args:
        run: the run folder.
        error: which batches, and what was found.
        model: whose parameters were not moved by that step; its running statistics have seen the batch.
        spec: for colours, mean and standard deviation.
        samples: the training part.
        processes: which process this is.
        where: epoch and step, from 1.
        mixed: whether autocast is on.
    """
    names = [str(samples[i].image) for batch in error.batches for i in batch.samples]
    loss, optimised = error.losses
    about: dict[str, Any] = {
        **where,
        "loss": str(loss),  # JSON has no word for them
        "optimized_loss": str(optimised),
        "weights_were_finite": not error.ruined,
        "images": names,
        "masks": [str(samples[i].mask) for batch in error.batches for i in batch.samples],
    }
    # Of several processes that each saw finite sums, whose total is not, the first one speaks for all.
    speaks = error.mine or processes.first
    weights = whole_tensors({f"model.{name}": t for name, t in model.state_dict().items()}, keep=speaks)
    if speaks:
        folder = run / place.DIVERGED_FOLDER
        stem = f"batch_{processes.rank}" if processes.rank else "batch"
        images = torch.cat([b.images for b in error.batches])
        masks = torch.cat([b.masks for b in error.batches]).to(torch.uint8)
        save_tensors(folder / f"{stem}.safetensors", weights | {"images": images, "masks": masks}, about)
        files.write_json(folder / f"{stem}.json", about)
        _draw(folder / f"{stem}.png", error.batches, spec)
    blamed = "the step before made the weights infinite or NaN with" if error.ruined else "with"
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    less = ", or set trainer.use_mixed_precision: bf16 or false" if mixed else ""
    return SegdeployError(
        f"{run}: the training loss of epoch {where['epoch']}, step {where['step']} is {optimised}, {blamed} {shown}; "
        f"look at {run / place.DIVERGED_FOLDER}, lower trainer.learning_rate{less}"
    )


def _draw(path: Path, batches: Sequence[Batch], spec: ModelSpec) -> None:
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (spec.preprocessing.mean, spec.preprocessing.std))
    pairs = []
    for batch in batches:
        for image, mask in zip(batch.images.cpu().float().numpy(), batch.masks.cpu().numpy(), strict=True):
            picture = np.nan_to_num((image * std + mean) * 255).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
            pairs.append(np.concatenate([picture, spec.classes.colorize(mask.astype(np.uint8))]))
    columns = min(_COLUMNS, len(pairs))
    pairs += [np.zeros_like(pairs[0])] * (-len(pairs) % columns)
    rows = [np.concatenate(pairs[i : i + columns], 1) for i in range(0, len(pairs), columns)]
    with files.replacing(path) as part:
        Image.fromarray(np.concatenate(rows)).save(part, format="png")
