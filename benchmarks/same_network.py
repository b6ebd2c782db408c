"""One network with one set of weights in the forms that are compared: smp's, a run, a bundle, a plain logits graph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from segdeploy.config import load_config
from segdeploy.data.masks import read_mask
from segdeploy.data.table import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segdeploy.classes import ClassMap
    from segdeploy.data.table import Sample

BY_HAND = Path(__file__).with_name("by_hand")
FIRST = "segdeploy"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(folder: Path, table: Path, config_file: Path, steps: int = 60) -> tuple[int, int]:
    """Fill `folder` with `smp`, `run`, `bundle` and `logits.onnx`, unless it is filled; gives (height, width).

    The network is smp's FPN on mobilenetv3_large_100, trained on `table` for a few steps at about half size, so
    that its labels are not the near-ties of random weights.
    """
    config = load_config(config_file)
    height, width = config.image.preprocessing.height, config.image.preprocessing.width
    assert height is not None and width is not None, "expected a configuration with height and width"  # noqa: PT018
    size = (height, width)
    if (folder / "logits.onnx").is_file():
        return size[0], size[1]
    folder.mkdir(parents=True, exist_ok=True)
    classes = config.mask.preprocessing.class_map()
    model = smp.FPN("tu-mobilenetv3_large_100", encoder_weights=None, classes=len(classes))
    _train(
        model,
        read_table(table, config.image.name, config.mask.name),
        classes,
        (size[0] // 64 * 32, size[1] // 64 * 32),
        steps,
    )
    model.eval().save_pretrained(folder / "smp")
    (folder / "classes.yaml").write_text(json.dumps({"classes": list(classes.names)}))
    words = [sys.executable, "-m", "segdeploy"]
    subprocess.run(
        [*words, "import", folder / "smp", "-o", folder / "run", "--classes", folder / "classes.yaml",
         "--height", str(size[0]), "--width", str(size[1]),
         "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))],
        check=True,
    )  # fmt: skip
    subprocess.run([*words, "export", folder / "run", "-o", folder / "bundle"], check=True)
    torch.onnx.export(model, (torch.zeros(1, 3, *size),), folder / "logits.onnx", dynamo=True, external_data=False)
    return size[0], size[1]


def commands(models: Path, size: tuple[int, int], threads: int) -> dict[str, Callable[[Path, Path], list[str | Path]]]:
    """The sides: (images, output) to a command."""
    options = [
        "--size", *map(str, size), "--mean", *map(str, MEAN), "--std", *map(str, STD), "--threads", str(threads),
    ]  # fmt: skip
    by_torch, by_ort = BY_HAND / "predict_torch.py", BY_HAND / "predict_onnxruntime.py"
    return {
        FIRST: lambda images, output: [
            sys.executable, "-m", "segdeploy", "predict", models / "bundle", images, "-o", output,
            "--backend", "onnxruntime", "--threads", str(threads),
        ],
        "onnxruntime by hand": lambda images, output: [
            sys.executable, by_ort, models / "logits.onnx", images, output, *options
        ],
        "smp and torch by hand": lambda images, output: [
            sys.executable, by_torch, models / "smp", images, output, *options
        ],
        "the same, channels_last": lambda images, output: [
            sys.executable, by_torch, models / "smp", images, output, *options, "--channels-last"
        ],
    }  # fmt: skip


def _train(
    model: torch.nn.Module,
    samples: Sequence[Sample],
    classes: ClassMap,
    size: tuple[int, int],
    steps: int,
    batch: int = 4,
) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=255)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    order = np.random.default_rng(0).integers(0, len(samples), (steps, batch))
    model.train()
    for chosen in order:
        images, masks = [], []
        for i in chosen:
            image = Image.open(samples[i].image).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
            mask = Image.fromarray(read_mask(samples[i].mask, classes)).resize(size[::-1], Image.Resampling.NEAREST)
            images.append(np.array(image))
            masks.append(np.array(mask))
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().sub_(mean).div_(std)
        loss = loss_of(model(x), torch.from_numpy(np.stack(masks)).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
