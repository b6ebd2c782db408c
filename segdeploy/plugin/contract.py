"""What an encoder, a decoder, a backend and a tracker are. Read this file before you write one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from segdeploy.bundle import Bundle
    from segdeploy.runtime.runner import Runner, RunnerOptions


class Section(Frozen):
    """Base of a plugin's configuration: each field is a key of the YAML file, with default and bounds.

    The string under a field is its description in `segdeploy plugins show`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """One level of a pyramid: `channels`, and how many input pixels one cell spans (`stride`)."""

    channels: int
    stride: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """A map that only training sees: its `channels` and `stride`, and the `weight` of its loss beside the main one."""

    channels: int
    stride: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlugin:
    """An image to a pyramid of feature maps.

    `build(config)` gives an `nn.Module` with
    - `forward(image)`: (N, 3, H, W) float, normalised -> one tensor per entry of `features`, finest first;
      level i has the size H / stride, W / stride, rounded up or down;
    - `features: tuple[FeatureMap, ...]`, real levels only, strides rising;
    - optionally `mean` and `std`, three floats each on the scale 0..1 (default: ImageNet's);
    - optionally `backbone`, the part that has trained weights (default: the whole encoder);
    - optionally `size_multiple: int`: heights and widths must be multiples of it (default 1: any size);
    - optionally `dynamic_size: bool`: true promises that the module can be exported with free height and width,
      and is right at sizes that were not the example's (default false);
    - optionally `aux: tuple[Auxiliary, ...]` and `forward_aux(image)` -> (what `forward` gives, a tuple with one
      map for each entry of `aux`). Class layers and losses of these maps are segdeploy's; `forward` never computes
      them.

    It must not read weights: it is also called to rebuild a model whose weights are at hand.
    `load_pretrained(module, config)`, if given, is called once, before training, and loads what the
    configuration asks for in place; it raises `MissingPartError` when that is not to be had. A key
    `trainable` in the configuration, where there is one, is honoured by the trainer: false freezes `backbone`.
    A key `weights` has its default again when a model is rebuilt: the run carries its own weights from then on.
    """

    name: str
    summary: str
    config: type[Section]
    build: Callable[[Any], nn.Module]
    load_pretrained: Callable[[nn.Module, Any], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderPlugin:
    """A pyramid of feature maps to one map at the resolution where classes are told apart.

    `build(config, features)` gives an `nn.Module` with
    - `forward(maps)`: the encoder's tuple -> (N, out.channels, H / out.stride, W / out.stride), of the size
      of the level of that stride;
    - `out: FeatureMap`;
    - optionally `dynamic_size`, `aux` and `forward_aux(maps)`, as for an encoder.

    The class layer, the upsampling to the image's size and the argmax belong to segdeploy. `keep_fp32`
    holds shell patterns (fnmatch) of ONNX node names that stay in FP32 when the rest becomes FP16, beside what
    the range probe finds by itself. `build` raises `ConfigError` when it cannot work with the given levels.
    """

    name: str
    summary: str
    config: type[Section]
    build: Callable[[Any, tuple[FeatureMap, ...]], nn.Module]
    keep_fp32: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a backend can run here; `reason` says what to do when it cannot, `version` which it is."""

    ok: bool
    reason: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlugin:
    """A way to run a model.

    `artifact` is the kind of file in a bundle that it runs ("weights", "onnx", "engine"), `precisions` are those in
    which it runs it; a benchmark has a row for each that the bundle holds. Its module imports the engine only inside
    `available` and `open`. `open(bundle, options)` gives a
    `segdeploy.runtime.runner.Runner` and raises `MissingPartError` or `ModelError` when it cannot.
    """

    name: str
    summary: str
    artifact: str
    available: Callable[[], Availability]
    open: Callable[[Bundle, RunnerOptions], Runner]
    precisions: tuple[str, ...] = ("fp32",)


class Tracker:
    """What hears of one training, in the process that trains; a base class whose methods do nothing.

    An error that leaves a method becomes one line in the log, and the tracker is told nothing more.
    """

    def epoch(self, row: Mapping[str, Any]) -> None:
        """After each epoch, and after its files are written: its line of `metrics.jsonl` as a mapping.

        Values are numbers, None where there is none, or under `validation_class_iou` a mapping of class names to them.
        """

    def close(self, *, finished: bool) -> None:
        """Once, at the end: all files of the run folder are written, the model card too, where `finished`.

        False: the training was broken off; it may be resumed, with a tracker of its own.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerPlugin:
    """A place that keeps the numbers of many trainings, such as a server of experiments.

    A training opens those that its configuration names under `trainer.trackers`, before its first epoch:
    `open(run, config)` gets the run folder and the resolved configuration as JSON-ready values and gives a `Tracker`.
    A run that is resumed opens again; what `open` needs to find its entry of before it may keep in a file of its own
    in the run folder. The module imports its client only inside `open`.
    """

    name: str
    summary: str
    open: Callable[[Path, Mapping[str, Any]], Tracker]
