"""Which layers must not be INT8: those whose rounding, by itself, changes most of what the network says."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.errors import ExportError
from segdeploy.export.graph import session_of
from segdeploy.export.qdq import attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Set

    import onnx
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loss:
    """What a quantised graph changes: `agreement`, the share of pixels that keep their label, and `noise`.

    `noise` is the power of the logits' error over the power of the logits, each less its pixel's mean, which no
    label sees; 0.001 is a ratio of signal to noise of 30 dB.
    """

    agreement: float
    noise: float

    def __str__(self) -> str:
        decibels = "" if self.noise <= 0 else f"noise {10 * np.log10(self.noise):.1f} dB, "
        return f"{decibels}{1 - self.agreement:.3%} of the labels change"


class Judge:
    """The FP32 graph's answers on some images, and what another graph loses against them.

    The labels are the ArgMax of the logits, whatever axis the classes are on.
    """

    def __init__(self, model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> None:
        self.images = images
        self.truth = self._run(model)

    def __call__(self, model: onnx.ModelProto) -> Loss:
        """Run a graph of the same interface."""
        same = pixels = 0
        error = power = 0.0
        for (logits, labels), (true_logits, true_labels) in zip(self._run(model), self.truth, strict=True):
            same += int((labels == true_labels).sum())
            pixels += labels.size
            error += _power(logits - true_logits)
            power += _power(true_logits)
        return Loss(same / pixels, error / power if power else 0.0)

    def _run(self, model: onnx.ModelProto) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        best = next(node for node in reversed(model.graph.node) if node.op_type == "ArgMax")
        axis = attribute(best, "axis", 0)
        names = [best.input[0], model.graph.output[0].name]
        session = session_of(model, names, fast=True)
        found = (session.run(names, {"image": image}) for image in self.images)
        return [(np.moveaxis(logits, axis, -1).astype(np.float32), labels) for logits, labels in found]


def _power(logits: NDArray[np.float32]) -> float:
    return float(np.square(logits - logits.mean(axis=-1, keepdims=True), dtype=np.float64).sum())


@dataclass(frozen=True, slots=True)
class Choice:
    """`left_out`: the layers that stay float, with what each loses (or the group that it was measured in).

    `loss` is that of the graph that is left, `all_in` that of the graph with every layer quantised.
    """

    left_out: dict[str, Loss]
    loss: Loss
    all_in: Loss


def leave_out(
    layers: Sequence[str],
    build: Callable[[Set[str]], onnx.ModelProto],
    judge: Callable[[onnx.ModelProto], Loss],
    *,
    min_agreement: float,
    evaluations: int,
) -> Choice:
    """Leave out as few of the worst layers as it takes for `min_agreement`.

    Rounding errors of layers hardly know of each other, so that their powers add up: each layer is measured with
    it alone quantised, and they leave in the order of their noise (https://arxiv.org/abs/1511.06393).

    Args:
        layers: in the graph's order; neighbours are measured together where there are more than `evaluations` allow.
        build: the graph with these layers quantised.
        judge: what a graph loses.
        min_agreement: share of the labels that must stay; 0 measures once and leaves nothing out.
        evaluations: how many graphs are run at most.

    Raises:
        ExportError: only a graph without any of the layers would keep so many labels.
    """
    all_in = judge(build(set(layers)))
    if all_in.agreement >= min_agreement:
        return Choice({}, all_in, all_in)
    reserve = 2 * max(1, len(layers)).bit_length() + 1
    room = max(4, evaluations - reserve)
    measured = _measure(layers, lambda group: judge(build(set(group))), room)
    ranked = sorted(measured, key=lambda group: -measured[group].noise)

    def without(count: int) -> tuple[set[str], Loss]:
        gone = {name for group in ranked[:count] for name in group}
        return gone, judge(build(set(layers) - gone))

    too_few, count = 0, 1
    while count < len(ranked) and (found := without(count))[1].agreement < min_agreement:
        too_few, count = count, count * 2
    if count >= len(ranked):
        count = len(ranked) - 1
        found = without(count) if count > too_few else (set(), all_in)
        if found[1].agreement < min_agreement:
            worst = ", ".join(ranked[0])
            raise ExportError(
                f"no layer can be INT8 if {min_agreement:.2%} of the labels are to stay: with all layers "
                f"{all_in.agreement:.2%} do, and {worst} alone: {measured[ranked[0]]}; lower the limit, or export fp16"
            )
    while count - too_few > 1:
        middle = (count + too_few) // 2
        tried = without(middle)
        if tried[1].agreement >= min_agreement:
            count, found = middle, tried
        else:
            too_few = middle
    left_out = {name: measured[group] for group in ranked[:count] for name in group}
    log.info("%d of %d layers stay float: %s", len(left_out), len(layers), found[1])
    return Choice(left_out, found[1], all_in)


def _measure(layers: Sequence[str], loss: Callable[[Sequence[str]], Loss], room: int) -> dict[tuple[str, ...], Loss]:
    """Each layer alone; where `room` is short, groups of neighbours, of which the worst are split again."""
    width = -(-len(layers) // max(1, room if len(layers) <= room else room // 2))
    groups = [tuple(layers[i : i + width]) for i in range(0, len(layers), width)]
    measured = {group: loss(group) for group in groups}
    spent = len(groups)
    while spent + 2 <= room and (wide := [g for g in measured if len(g) > 1]):
        worst = max(wide, key=lambda group: measured[group].noise)
        del measured[worst]
        for half in (worst[: len(worst) // 2], worst[len(worst) // 2 :]):
            measured[half] = loss(half)
        spent += 2
    return measured
