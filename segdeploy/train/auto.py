"""What the configuration leaves to the program, settled before training; each choice is a line in the log.

The choices are written into the run's configuration as numbers, so that resuming and evaluating choose nothing again.
"""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING

import torch

from segdeploy.errors import ConfigError
from segdeploy.train.plan import make_plan
from segdeploy.train.trial import StepTrial

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.config.schema import RunConfig
    from segdeploy.config.trainer import Trainer
    from segdeploy.data.scan import ScanReport
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.train.distributed import Processes

log = logging.getLogger(__name__)

START = 8
"""Images per step that are tried first; where they fit, time is no reason to take fewer."""
GAIN = 1.05
"""Twice as many images per step must train this many times as fast, or they only cost updates."""
SHARE = 5
"""At most one in five training samples per step (Ludwig's limit), so that an epoch has a handful of steps."""

_RATES = {
    # (SGD?, pretrained?): rate, at so many images per step
    (False, False): (1e-3, 8),  # Kingma and Ba 2015
    # The geometric mean of SegFormer's 6e-5 for its encoder and 6e-4 for its head (Xie et al. 2021).
    (False, True): (2e-4, 16),
    (True, False): (5e-2, 16),  # BiSeNet V2 (Yu et al. 2021), momentum 0.9
    (True, True): (1e-2, 16),  # PSPNet (Zhao et al. 2017), momentum 0.9
}
_LEAST_SCALE = 0.1
"""SegFormer's encoder_lr_scale. At scale s the head has rate / sqrt(s) and the encoder rate * sqrt(s); below this
value the head's rate rises no further."""
_ADAPTIVE = ("adam", "adamw", "nadam", "radam")


def settle_trainer(
    config: RunConfig, segmenter: Segmenter, report: ScanReport, samples: int, processes: Processes, *, pretrained: bool
) -> RunConfig:
    """`config` with numbers in place of `batch_size: auto` and `learning_rate: auto`.

    Args:
        config: with the network's size.
        segmenter: on the CPU, stays as it is.
        report: what the training part holds.
        samples: in the training part.
        processes: this one and those that train with it; each takes `batch_size` images at a time.
        pretrained: whether the encoder, or the whole model, was trained before.

    Raises:
        ConfigError: not one image fits, or no rule is known for the optimiser.
    """
    trainer = config.trainer
    whole, parts = trainer.effective_batch_size, trainer.gradient_accumulation_steps
    if trainer.batch_size == "auto" and whole != "auto" and parts != "auto":
        trainer = trainer.model_copy(update={"batch_size": max(1, whole // (parts * processes.size))})
    elif trainer.batch_size == "auto":
        # Of each batch, of which a step may have several.
        each = max(1, samples // (processes.size * (1 if parts == "auto" else parts)))
        step = each if whole == "auto" else max(1, whole // processes.size)
        most = min(max(2, each // SHARE), each, step, trainer.max_batch_size)
        with StepTrial(segmenter, config, report, processes.device) as trial:
            size, why = largest(trial, most)
        log.info("batch size: %d images per step, %s; set trainer.batch_size to choose", size, why)
        trainer = trainer.model_copy(update={"batch_size": size})
    if trainer.learning_rate == "auto":
        images = make_plan(samples, processes.size, trainer).effective_batch_size
        rate = learning_rate_for(trainer, images, pretrained=pretrained)
        log.info(
            "learning rate: %.2g at most, for %s, %d images per step, %s weights; set trainer.learning_rate to choose",
            rate,
            trainer.optimizer.type,
            images,
            "pretrained" if pretrained else "random",
        )
        if trainer.learning_rate_scheduler.end > rate:
            raise ConfigError(
                f"trainer.learning_rate_scheduler ends at {trainer.learning_rate_scheduler.end:g}, above the "
                f"learning rate {rate:g} that auto chooses; lower it, or set trainer.learning_rate"
            )
        trainer = trainer.model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"trainer": trainer})


def describe_device(device: str, trainer: Trainer) -> str:
    """One line on what trains, with how many threads and in which precision, and why."""
    if device == "cuda":
        said = "mixed precision" if trainer.use_mixed_precision else "FP32; trainer.use_mixed_precision is faster"
        return f"device: {torch.cuda.get_device_name()}, {said}"
    why = "as OMP_NUM_THREADS says" if "OMP_NUM_THREADS" in os.environ else "the cores that torch may use"
    threads = f"{torch.get_num_threads()} threads, {why}"
    return f"device: cpu, {threads}, FP32, as 16-bit formats are slower on most CPUs"


def largest(trial: Callable[[int], float | None], most: int) -> tuple[int, str]:
    """The most images per step that fit and still make training faster, and why no more.

    Sizes are doubled from `START` while each doubling brings `GAIN`, as Ludwig does; where one does not fit, the gap
    is halved down to an eighth.

    Args:
        trial: images per second with that many images per step; None: they do not fit.
        most: the largest size that is allowed, at least 1.

    Raises:
        ConfigError: not one image fits.
    """
    low, rate, high = 0, 0.0, 0  # fits, its speed, does not fit; 0: none is known
    size = min(START, most)
    while True:
        found = trial(size)
        if found is None:
            high = size
        elif low and not high and found < rate * GAIN:
            return low, f"of which {size} are hardly faster ({found:.1f} images/s instead of {rate:.1f})"
        else:
            low, rate = size, found
        if not high and low == most:
            return low, f"the most that trainer.max_batch_size or one in {SHARE} training samples allow"
        if high and high - low <= max(1, low // 8):
            break
        size = (low + high) // 2 if high else min(2 * low, most)
    if not low:
        raise ConfigError("trainer.batch_size: auto: not one image fits into memory; choose a smaller input or crop")
    return low, f"the most that fit into memory ({high} do not)"


def learning_rate_for(trainer: Trainer, images: int, *, pretrained: bool) -> float:
    """A peak learning rate from published recipes, brought to this batch size.

    Recipes: see `_RATES`. For SGD the rate grows with the batch size (Goyal et al. 2017) and with 1 - momentum, for
    Adam and its kin with the root of the batch size (Malladi et al. 2022). A smaller `encoder_lr_scale` of Adam and
    its kin leaves pretrained encoders a lower rate and heads a higher one.

    Args:
        trainer: whose optimiser it is for.
        images: per step of the optimiser.
        pretrained: whether the weights were trained before.

    Raises:
        ConfigError: no recipe is known for the optimiser.
    """
    rule = trainer.optimizer
    if rule.type not in (*_ADAPTIVE, "sgd"):
        raise ConfigError(
            f"trainer.learning_rate: auto knows {', '.join(_ADAPTIVE)} and sgd, not {rule.type}; give a number"
        )
    plain = rule.type == "sgd"
    rate, at = _RATES[plain, pretrained]
    if pretrained and not plain:
        rate /= math.sqrt(min(1.0, max(rule.encoder_lr_scale, _LEAST_SCALE)))
    scaled = (
        rate * images / at * (1 - rule.settings["momentum"]) / (1 - 0.9) if plain else rate * math.sqrt(images / at)
    )
    return float(f"{scaled:.2g}")
