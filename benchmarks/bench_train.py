"""Training throughput, side by side in one run: segdeploy's step against a plain loop on the same network.

    pip install "segdeploy[all-cpu]" segmentation-models-pytorch
    python benchmarks/bench_train.py TRAIN.csv -c benchmarks/camvid/fpn_mobilenetv3.yaml -o result.json

Both train the configuration's network from the same weights, with batches of `batch_size` (or --batch), the same
augmentation, losses, AdamW and clipping. The plain loop is what users write: a torch DataLoader that opens files with
Pillow, torchvision's v2 transforms on tv_tensors, segmentation_models_pytorch's losses, default memory format; once
without worker processes, once with --workers of them, and once in channels_last. Its crops lie anywhere: windows about
rare classes cost our side alone. segdeploy's side is `segdeploy train`'s own feed and step, with the samples decoded
before the clock starts, as from the second epoch on; once more it gives freed memory back, as glibc does by itself.

Each side is a process of its own, with the environment that it has when it runs alone: segdeploy's commands set
OMP_WAIT_POLICY=PASSIVE, a loop has torch's default. They take turns in blocks of steps, and each round gives one ratio;
a round in which other work had the cores does not count. First of all both take 20 steps on the same batches: the
first losses have to be the same, and the later ones near each other, though training drives rounding errors apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing, nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from processes import SECONDS, Side, environment_of, take_turns
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from segdeploy.benchmark.timing import paired_ratio
from segdeploy.config import load_config
from segdeploy.config.augmentation import ColorJitter, Crop, HorizontalFlip, Scale
from segdeploy.data.augment import Augment
from segdeploy.data.dataset import Dataset
from segdeploy.data.facts import read_facts
from segdeploy.data.masks import read_mask
from segdeploy.data.scan import judge
from segdeploy.data.table import Sample, read_table
from segdeploy.environment import describe_machine
from segdeploy.files import write_json
from segdeploy.model.segmenter import from_config
from segdeploy.train.distributed import Processes
from segdeploy.train.ema import build_ema
from segdeploy.train.feed import Feed
from segdeploy.train.learner import build_learner
from segdeploy.train.losses import build_loss
from segdeploy.train.memory import keep_freed_memory
from segdeploy.train.optim import build_optimizer
from segdeploy.train.profile import Profile
from segdeploy.train.step import Batch, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.scan import ScanReport
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.model.spec import ModelSpec

CPU = Processes(torch.device("cpu"))
COMPARED_STEPS = 20
LARGEST_FIRST, LARGEST_MEAN = 0.002, 0.05
"""Differences of the first step's losses, and of all steps' on average, as parts of the plain side's."""
OURS, FREEING = "segdeploy", "segdeploy, freed memory given back"
PLAIN, CHANNELS_LAST = "plain", "plain, channels_last"


class Sides:
    """What both sides start from."""

    def __init__(self, config: RunConfig, table: Path, batch: int) -> None:
        self.config, self.batch = config, batch
        self.samples = read_table(table, config.image.name, config.mask.name)
        self.classes = config.mask.preprocessing.class_map()

    def network(self) -> tuple[ModelSpec, Segmenter]:
        """The same weights each time."""
        torch.manual_seed(0)
        return from_config(self.config, self.classes, pretrained=False)

    def report(self) -> ScanReport:
        """What the masks hold, for losses with weights and crops about rare classes."""
        return judge({"training": read_facts(self.samples)}, self.classes, self.config.preprocessing.allow)["training"]

    def ours(self) -> tuple[ModelSpec, Augment, Step]:
        """`segdeploy train`'s step."""
        trainer = self.config.trainer
        spec, model = self.network()
        model = model.to(memory_format=torch.channels_last).train()
        report = self.report()
        augment = Augment(self.config.image.augmentation, spec.preprocessing, report)
        step = Step(
            build_learner(model, trainer, CPU, self.config.image.training_size),
            model,
            build_loss(self.config.mask.loss, report),
            build_optimizer(model, trainer),
            torch.amp.GradScaler("cpu", enabled=False),
            build_ema(model, trainer.ema_decay) if trainer.ema_decay else None,
            trainer,
            None,
            CPU,
            Profile(CPU.device),
        )
        return spec, augment, step

    def plain(self, layout: torch.memory_format) -> tuple[ModelSpec, Callable[[Tensor, Tensor], float]]:
        """A plain loop's step: images (N, 3, H, W) float32 and masks (N, H, W) int64 -> the loss."""
        spec, model = self.network()
        model.to(memory_format=layout).train()
        trainer = self.config.trainer
        decay = trainer.optimizer.weight_decay
        if any(loss.class_weights for loss in self.config.mask.losses):
            raise SystemExit("this benchmark has no plain form of class_weights")
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=trainer.peak_learning_rate, weight_decay=0.01 if decay is None else decay
        )
        losses = [(loss.weight, plain_loss(loss.type)) for loss in self.config.mask.losses]

        def step(images: Tensor, masks: Tensor) -> float:
            optimizer.zero_grad()
            logits = model(images.contiguous(memory_format=layout))
            loss = sum(weight * loss_of(logits, masks) for weight, loss_of in losses)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.gradient_clipping.clipglobalnorm or float("inf"))
            optimizer.step()
            return float(loss.detach())

        return spec, step


def plain_loss(name: str) -> nn.Module:
    """The loss of that name in torch or segmentation_models_pytorch."""
    if name == "dice":
        import segmentation_models_pytorch as smp

        dice: nn.Module = smp.losses.DiceLoss("multiclass", ignore_index=255)
        return dice
    if name == "softmax_cross_entropy":
        return nn.CrossEntropyLoss(ignore_index=255)
    raise SystemExit(f"this benchmark has no plain form of the loss {name}")


class Pictures(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Files as users read them, changed by torchvision."""

    def __init__(self, samples: list[Sample], spec: ModelSpec, config: RunConfig) -> None:
        self.samples, self.spec = samples, spec
        size = (spec.preprocessing.height, spec.preprocessing.width)
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
        changes: list[nn.Module] = [v2.Resize(size)]
        for step in config.image.augmentation:
            if isinstance(step, HorizontalFlip):
                changes.append(v2.RandomHorizontalFlip(step.probability))
            elif isinstance(step, Scale):
                changes.append(v2.ScaleJitter(size, (step.min, step.max)))
            elif isinstance(step, Crop):
                changes.append(v2.RandomCrop((step.height, step.width), pad_if_needed=True, fill=fill))
            elif isinstance(step, ColorJitter):
                changes.append(v2.ColorJitter(step.brightness, step.contrast, step.saturation, step.hue))
            else:
                raise SystemExit(f"this benchmark has no plain form of {step.type}")
        kinds = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
        mean, std = list(spec.preprocessing.mean), list(spec.preprocessing.std)
        self.change = v2.Compose([*changes, v2.ToDtype(kinds, scale=True), v2.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = self.samples[index]
        assert sample.mask is not None
        image = v2.functional.pil_to_tensor(Image.open(sample.image).convert("RGB"))
        mask = torch.from_numpy(np.array(read_mask(sample.mask, self.spec.classes)))
        changed: tuple[Tensor, Tensor] = self.change(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return changed


def our_blocks(sides: Sides, steps: int) -> Iterator[float]:
    """Seconds of one block of steps after the other."""
    spec, augment, step = sides.ours()
    data = Dataset(sides.samples, spec)
    feed = Feed(data, augment, CPU.device, step.profile)
    for index in range(len(data)):
        data.stack([index])  # decoded once, as the first epoch does
    generator = torch.Generator().manual_seed(0)
    order = cycle(torch.randperm(len(data), generator=generator).tolist())
    while True:
        chunks = [[list(islice(order, sides.batch))] for _ in range(steps)]
        started = time.perf_counter()
        with closing(feed(chunks, [generator])) as batches:
            for _ in chunks:
                step(batches, 1, sides.config.trainer.peak_learning_rate, asked=False)
        yield time.perf_counter() - started


def plain_blocks(sides: Sides, steps: int, workers: int, layout: torch.memory_format) -> Iterator[float]:
    """Seconds of one block of steps after the other."""
    spec, step = sides.plain(layout)
    torch.manual_seed(0)
    pictures = Pictures(sides.samples, spec, sides.config)
    loader = torch.utils.data.DataLoader(
        pictures, sides.batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    batches = (batch for _ in cycle([0]) for batch in loader)
    while True:
        for _ in range(2 * workers + 1):  # what workers made ready while the other side had the cores
            images, masks = next(batches)
        step(images, masks)
        started = time.perf_counter()
        for images, masks in islice(batches, steps):
            step(images, masks)
        yield time.perf_counter() - started


def serve(sides: Sides, side: str, steps: int) -> None:
    """Be that side: a block for each line on standard input."""
    with keep_freed_memory() if side == OURS else nullcontext():
        if side in (OURS, FREEING):
            blocks = our_blocks(sides, steps)
        else:
            workers = 0 if side in (PLAIN, CHANNELS_LAST) else int(side.rsplit(" ", 1)[1])
            layout = torch.channels_last if side == CHANNELS_LAST else torch.contiguous_format
            blocks = plain_blocks(sides, steps, workers, layout)
        for _ in sys.stdin:
            print(SECONDS, next(blocks), flush=True)


def losses_agree(sides: Sides) -> dict[str, Any]:
    """Losses of both sides over the same batches and the same random numbers.

    Raises:
        SystemExit: they differ by more than rounding explains.
    """
    spec, augment, ours = sides.ours()
    _, plain = sides.plain(torch.contiguous_format)
    data = Dataset(sides.samples, spec)
    order = np.random.default_rng(2).permutation(len(data))
    generator = torch.Generator().manual_seed(1)
    found: dict[str, list[float]] = {OURS: [], PLAIN: []}
    for number in range(COMPARED_STEPS):
        chunk = [int(i) for i in np.take(order, range(number * sides.batch, (number + 1) * sides.batch), mode="wrap")]
        images, masks = map(torch.from_numpy, data.stack(chunk))
        x, y = augment(images, masks, generator)
        torch.manual_seed(number)  # of dropout
        batch = Batch(tuple(chunk), x.contiguous(memory_format=torch.channels_last), y)
        found[OURS].append(
            float(ours(iter([batch]), 1, sides.config.trainer.peak_learning_rate, asked=False).values[0])
        )
        torch.manual_seed(number)
        found[PLAIN].append(plain(x.contiguous(), y))
    differences = np.abs(np.subtract(found[OURS], found[PLAIN])) / found[PLAIN]
    if differences[0] > LARGEST_FIRST or differences.mean() > LARGEST_MEAN:
        raise SystemExit(f"the sides do not learn the same: losses {found}")
    return {"losses": found, "first_difference": differences[0], "mean_difference": differences.mean()}


def main() -> None:
    """Run all sides and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, help="write the result there, too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that read for the second plain side")
    parser.add_argument("--batch", type=int, default=0, help="default: the configuration's batch_size")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.config)
    sides = Sides(config, arguments.table, arguments.batch or config.trainer.samples_per_step)
    if arguments.side:
        serve(sides, arguments.side, arguments.steps)
        return
    agreement = losses_agree(sides)
    names = [OURS, FREEING, PLAIN, f"plain, workers {arguments.workers}", CHANNELS_LAST]
    words = [sys.executable, __file__, str(arguments.table), "-c", str(arguments.config), "--batch", str(sides.batch),
             "--steps", str(arguments.steps), "--threads", str(arguments.threads)]  # fmt: skip
    found = take_turns(
        {
            name: Side([*words, "--side", name], environment_of(ours=name in (OURS, FREEING)), arguments.threads)
            for name in names
        },
        arguments.rounds,
    )
    seconds = found.seconds
    images = arguments.steps * sides.batch
    ratios = {}
    for name in names[1:]:
        median, low, high = paired_ratio([[v] for v in seconds[name]], [[v] for v in seconds[OURS]])
        ratios[name] = {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}
    result = {
        "images_per_second": {k: round(images / float(np.median(v)), 2) for k, v in seconds.items()},
        "times_as_fast_as": ratios,
        "same_batches": agreement,
        "seconds": seconds,
        "rounds": arguments.rounds,
        "rounds_disturbed": found.disturbed,
        "steps": arguments.steps,
        "batch": sides.batch,
        "size": config.image.training_size,
        "parameters": sum(p.numel() for p in sides.network()[1].parameters()),
        "threads": arguments.threads,
        "config": config.model_dump(mode="json", exclude={"data"}),
        "machine": describe_machine(),
    }
    if arguments.output:
        write_json(arguments.output, result)
    print(json.dumps({k: v for k, v in result.items() if k not in ("config", "seconds", "same_batches")}, indent=2))
    print(
        f"same batches: the first losses differ by {agreement['first_difference']:.3%}, "
        f"those of {COMPARED_STEPS} steps by {agreement['mean_difference']:.1%} on average"
    )


if __name__ == "__main__":
    main()
