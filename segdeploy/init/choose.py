"""Network, size, batch, epochs, augmentation and split for a data set on a machine, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.data.scan import median_frequency_weights

if TYPE_CHECKING:
    from segdeploy.init.look import MaskTotals
    from segdeploy.init.machine import Machine
    from segdeploy.init.settle import Settled

STRIDE = 32
"""The coarsest map of the encoders: sizes are multiples of it, so that all levels fit on each other."""
_SKEWED = 10
_NEAR = 0.9
"""A picture that is hardly over the budget keeps its size."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An encoder with a decoder.

    `bytes_per_pixel` is the memory that a training step in FP32 takes for each pixel of its batch, measured on a CPU
    with 11 classes (peak resident memory, 1.5 and 3.1 KB, rounded up).
    """

    model_name: str
    repository: str
    channels: int
    bytes_per_pixel: int
    why: str


SMALL = Network(
    model_name="mobilenetv3_large_100",
    repository="timm/mobilenetv3_large_100.ra_in1k",
    channels=128,
    bytes_per_pixel=2000,
    why="which trains without a GPU in reasonable time",
)
LARGE = Network(
    model_name="resnet50",
    repository="timm/resnet50.a1_in1k",
    channels=256,
    bytes_per_pixel=4000,
    why="which a GPU trains in reasonable time",
)
REPOSITORIES = (SMALL.repository, LARGE.repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes into the configuration; the fields that end in `why` are its comments."""

    network: Network
    network_why: str
    pretrained: bool
    pretrained_why: str
    size: tuple[int, int]
    size_why: str
    crop: tuple[int, int] | None
    batch_size: int
    batch_why: str
    epochs: int
    epochs_why: str
    learning_rate: str
    learning_rate_why: str
    mixed_precision: bool
    weighted: bool
    weights_why: str
    probabilities: tuple[float, float, float]


def choose(facts: MaskTotals, settled: Settled, samples: int, split: bool, machine: Machine) -> Plan:
    """The plan; the same input gives the same plan.

    Args:
        facts: what the masks that were looked at hold.
        settled: the classes.
        samples: how many there are to train on; with `split`, how many there are to cut into parts at random.
        machine: what the model will be trained on.
    """
    probabilities = _probabilities(samples)
    training = round(probabilities[0] * samples) if split else samples
    network = LARGE if machine.gpu else SMALL
    size, size_why = _size(facts, machine)
    crop = _crop(size)
    pretrained = network.repository in machine.cached
    window = crop or size
    batch, batch_why = _batch(network, window, training, machine)
    epochs, epochs_why = _epochs(training, machine, pretrained=pretrained)
    weighted, weights_why = _weights(facts, settled)
    return Plan(
        network=network,
        network_why=f"{_machine_words(machine)}: {network.model_name} with an fpn, {network.why}.",
        pretrained=pretrained,
        pretrained_why=_pretrained_why(network, pretrained),
        size=size,
        size_why=size_why,
        crop=crop,
        batch_size=batch,
        batch_why=batch_why,
        epochs=epochs,
        epochs_why=epochs_why,
        learning_rate="5e-4" if pretrained else "2e-3" if network is SMALL else "1e-3",
        learning_rate_why="Small, so that the trained weights are not forgotten."
        if pretrained
        else "Peak of a cosine; AdamW from random weights. Halve it if the loss jumps.",
        mixed_precision=machine.gpu is not None,
        weighted=weighted,
        weights_why=weights_why,
        probabilities=probabilities,
    )


def _machine_words(machine: Machine) -> str:
    if machine.gpu:
        return f"{machine.gpu}, {machine.gpu_memory / _GIB:.0f} GiB"
    return f"{machine.cores} CPU core{'s' if machine.cores > 1 else ''}, no GPU that torch can use"


def _pretrained_why(network: Network, pretrained: bool) -> str:
    if pretrained:
        return f"trained weights ({network.repository}) are in the local cache"
    return (
        f"{network.repository} is not in the local cache. With a network, true downloads it and usually gives a "
        "better model in fewer epochs"
    )


def _size(facts: MaskTotals, machine: Machine) -> tuple[tuple[int, int], str]:
    height, width = facts.median_size
    budget = _pixel_budget(machine)
    factor = math.sqrt(budget / (height * width))
    factor = 1.0 if factor > _NEAR else factor
    size = (_to_stride(height * factor), _to_stride(width * factor))
    if len(facts.sizes) == 1:
        seen = f"All {facts.masks:,} masks looked at are {height}x{width} (height x width)"
    else:
        heights, widths = zip(*facts.sizes, strict=True)
        seen = (
            f"The {facts.masks:,} masks looked at are {min(heights)} to {max(heights)} high and {min(widths)} to "
            f"{max(widths)} wide; the middle one by area is {height}x{width} (height x width)"
        )
    if factor < 1:
        scaled = f"scaled by {factor:.2f} to about {budget:,} pixels, what this machine trains in reasonable time, and "
    else:
        scaled = ""
    return size, f"{seen}; {scaled}brought to multiples of {STRIDE}."


def _pixel_budget(machine: Machine) -> int:
    if not machine.gpu:
        return min(512 * 512, 85_000 * machine.cores)
    return 1024 * 1024 if machine.gpu_memory >= 40 * _GIB else 1024 * 512 if machine.gpu_memory >= 12 * _GIB else 512**2


def _to_stride(side: float) -> int:
    return max(2, round(side / STRIDE)) * STRIDE


def _crop(size: tuple[int, int]) -> tuple[int, int] | None:
    if min(size) < 160:
        return None
    return int(size[0] * 0.85) // STRIDE * STRIDE, int(size[1] * 0.85) // STRIDE * STRIDE


def _batch(network: Network, window: tuple[int, int], training: int, machine: Machine) -> tuple[int, str]:
    room = machine.gpu_memory if machine.gpu else machine.memory
    one = window[0] * window[1] * network.bytes_per_pixel
    most = 16 if machine.gpu else 8
    batch = most
    while batch > 2 and (batch * one > room / 2 or batch * 4 > training):
        batch //= 2
    what = "GPU memory" if machine.gpu else "memory"
    need = batch * one
    size = f"{need / _GIB:.1f} GiB" if need >= _GIB else f"{need / (1 << 20):.0f} MiB"
    return batch, f"A step on {batch} pictures of {window[0]}x{window[1]} takes about {size} of {what}."


def _epochs(training: int, machine: Machine, *, pretrained: bool) -> tuple[int, str]:
    target, least, most = (100_000, 30, 200) if machine.gpu else (15_000 if pretrained else 22_000, 10, 100)
    epochs = min(most, max(least, round(target / training / 5) * 5))
    return epochs, f"{training} training images; {epochs} epochs show {epochs * training:,} samples."


def _weights(facts: MaskTotals, settled: Settled) -> tuple[bool, str]:
    meant = [i for i in range(len(settled.classes)) if i not in settled.slips]
    pixels = np.array([facts.pixels_of(settled.spelled[i]) for i in meant])
    weights = median_frequency_weights(pixels, np.array([facts.masks_with(settled.spelled[i]) for i in meant]))
    ratio, rarest = float(weights.max()), settled.classes[meant[int(weights.argmax())]].name
    fact = f"the median class is {ratio:.1f} times as frequent as the rarest ({rarest}), in the masks that have them"
    if ratio > _SKEWED:
        return True, f"auto (median frequency / frequency): {fact}. Delete it to count every pixel the same."
    return False, f"No class_weights: {fact}. Above some {_SKEWED}, add class_weights: auto to the cross-entropy."


def _probabilities(samples: int) -> tuple[float, float, float]:
    return (0.7, 0.1, 0.2) if samples >= 50 else (0.6, 0.2, 0.2) if samples >= 10 else (0.5, 0.5, 0.0)
