"""Training throughput, side by side in one run: segdeploy's step against a plain torch loop on the same network.

    pip install "segdeploy[all-cpu]"
    python benchmarks/bench_train.py TRAIN.csv -c benchmarks/camvid/fpn_mobilenetv3.yaml

Both train the configuration's network from the same weights, with batches of 8 crops, flips, cross-entropy and AdamW.
The plain loop is what users write: files opened by Pillow for every sample, flip and crop in NumPy, normalised on the
CPU, default memory format, default AdamW. segdeploy's side augments as the configuration says and clips gradients, as
`segdeploy train` does; its images are decoded before the clock starts, as from the second epoch on, and the time of
that first pass stands beside the result. The sides take turns in blocks of steps; each pair of blocks gives one ratio.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from segdeploy.benchmark.timing import paired_ratio
from segdeploy.config import load_config
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.data.masks import read_mask
from segdeploy.data.table import Sample, read_table
from segdeploy.environment import describe_machine
from segdeploy.model.segmenter import from_config
from segdeploy.train.optim import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.config import RunConfig

BATCH = 8


def segdeploy_side(config: RunConfig, samples: list[Sample]) -> tuple[Callable[[list[int]], None], int]:
    """One step as `segdeploy train` takes it."""
    torch.manual_seed(0)
    spec, model = from_config(config, config.mask.preprocessing.class_map(), pretrained=False)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config.trainer)
    augment = Augment(config.image.augmentation, spec.preprocessing)
    data = Dataset(samples, spec)
    generator = torch.Generator().manual_seed(0)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=255)

    def step(order: list[int]) -> None:
        for images, masks in data.batches(order, BATCH):
            x, y = augment(torch.from_numpy(images), torch.from_numpy(masks), generator)
            loss = loss_of(model(x.contiguous(memory_format=torch.channels_last)), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return step, sum(p.numel() for p in model.parameters())


def plain_side(
    config: RunConfig, samples: list[Sample], crop: tuple[int, int]
) -> tuple[Callable[[list[int]], None], int]:
    """One step of a plain loop."""
    torch.manual_seed(0)
    spec, model = from_config(config, config.mask.preprocessing.class_map(), pretrained=False)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_of = torch.nn.CrossEntropyLoss(ignore_index=255)
    random = np.random.default_rng(0)
    mean, std = np.array(spec.preprocessing.mean, np.float32), np.array(spec.preprocessing.std, np.float32)

    def load(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
        image = np.asarray(Image.open(sample.image).convert("RGB"))
        assert sample.mask is not None
        mask = read_mask(sample.mask, spec.classes)
        top = random.integers(0, image.shape[0] - crop[0] + 1)
        left = random.integers(0, image.shape[1] - crop[1] + 1)
        window = slice(top, top + crop[0]), slice(left, left + crop[1])
        image, mask = image[window], mask[window]
        if random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        x = (image.astype(np.float32) / 255 - mean) / std
        return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))), torch.from_numpy(mask.astype(np.int64))

    def step(order: list[int]) -> None:
        for start in range(0, len(order), BATCH):
            pairs = [load(samples[i]) for i in order[start : start + BATCH]]
            loss = loss_of(model(torch.stack([p[0] for p in pairs])), torch.stack([p[1] for p in pairs]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step, sum(p.numel() for p in model.parameters())


def main() -> None:
    """Run both sides and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="steps in a block")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.config)
    crop = next((s.height, s.width) for s in config.image.augmentation if s.type == "random_crop")
    samples = read_table(arguments.table, config.image.name, config.mask.name)
    ours, our_parameters = segdeploy_side(config, samples)
    theirs, their_parameters = plain_side(config, samples, crop)
    assert our_parameters == their_parameters
    order = np.random.default_rng(1).permutation(len(samples)).tolist()
    images = arguments.steps * BATCH
    for warm in (ours, theirs):
        warm(order[: 2 * BATCH])
    began = time.perf_counter()
    ours(order)  # decode once, as the first epoch does; the cache is what every later epoch sees
    first_pass = time.perf_counter() - began
    seconds: dict[str, list[float]] = {"segdeploy": [], "plain": []}
    for turn in range(arguments.rounds):
        block = [order[(turn * images + i) % len(order)] for i in range(images)]
        sides = [("segdeploy", ours), ("plain", theirs)]
        for name, step in sides if turn % 2 == 0 else sides[::-1]:
            started = time.perf_counter()
            step(block)
            seconds[name].append(time.perf_counter() - started)
    median, low, high = paired_ratio([[v] for v in seconds["plain"]], [[v] for v in seconds["segdeploy"]])
    print(
        json.dumps(
            {
                "images_per_second": {k: round(images / float(np.median(v)), 2) for k, v in seconds.items()},
                "ratio": {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)},
                "seconds": seconds,
                "first_pass_seconds": round(first_pass, 1),
                "rounds": arguments.rounds,
                "parameters": our_parameters,
                "crop": crop,
                "batch": BATCH,
                "threads": arguments.threads,
                "machine": describe_machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
