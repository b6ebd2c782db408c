"""Which nodes of a graph stay in FP32, and why.

Sources: TensorRT's notes on computational precision
(https://docs.nvidia.com/deeplearning/tensorrt/11.0.0/inference-library/precision-control.html: precision is what the
graph says; a matrix product may add up in its inputs' type, and one whose inputs are cast to FP32 adds up in FP32) and
on accuracy (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/accuracy-considerations.html).
"""

from __future__ import annotations

from fnmatch import fnmatch
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.export.fp16_range import ALWAYS_FP32, DIVISORS, LARGEST, SAFE, SMALLEST
from segdeploy.export.graph import FLOAT, PRODUCTS
from segdeploy.export.precision_types import to_half

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from segdeploy.export.fp16_range import Ranges
    from segdeploy.export.graph import GraphView
    from segdeploy.export.precision_types import Slots

# Places in an image or a sequence, where FP16's eleven bits end at 2048; normalisations and sums of exponentials.
_PLACES = {"AffineGrid", "Cos", "CumSum", "GridSample", "Range", "Sin"}
_SUMS_OF_POWERS = {"LpNormalization", "MeanVarianceNormalization", "ReduceLogSum", "ReduceLogSumExp"}
_EXACT_INTEGERS = 2048
_LOST = 0.01
# What a weight multiplies; where one is added, what FP16 takes off it is too small to matter.
_SCALED = PRODUCTS | {"BatchNormalization", "Div", "Mul", "PRelu"}
_STATISTICS = {"Abs", "GlobalAveragePool", "Pow", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"}
_STATISTICS |= {"Sqrt", "Sub"}
_MOVES = {"Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_PAIR = {"QuantizeLinear", "DequantizeLinear"}
_SCORES = {"Clip", "LogSoftmax", "Resize", "Sigmoid", "Softmax", *_MOVES}


def find_fp32(slots: Slots, ranges: Ranges, keep_fp32: Sequence[str]) -> dict[int, str]:
    """By place of the node, the reason why it stays in FP32; the first reason that holds."""
    view = slots.view
    found: dict[int, str] = {}
    computing = set(slots.computing)
    rules = (
        _by_name(view, keep_fp32),
        ((i, "has no FP16 form") for i in slots.fp32_only),
        _by_operator(view),
        _by_range(slots, ranges),
        _by_small_values(view, ranges),
        _by_constants(slots),
        _by_scores(view),
    )
    for place, reason in chain.from_iterable(rules):
        if place in computing:
            found.setdefault(place, reason)
    return found


def _by_name(view: GraphView, patterns: Sequence[str]) -> Iterator[tuple[int, str]]:
    for place, node in enumerate(view.nodes):
        for pattern in patterns:
            if fnmatch(node.name, pattern):
                yield place, f"asked for by keep_fp32 {pattern!r}"


def _by_operator(view: GraphView) -> Iterator[tuple[int, str]]:
    for place, node in enumerate(view.nodes):
        if node.op_type in ALWAYS_FP32 | _SUMS_OF_POWERS:
            yield place, "adds up squares or exponentials in the type of its input"
        if node.op_type in _PLACES:
            yield place, "counts places, and FP16 is exact to 2048 only"


def _by_range(slots: Slots, ranges: Ranges) -> Iterator[tuple[int, str]]:
    view = slots.view
    for place, node in enumerate(view.nodes):
        # Its readers too: what they would get is cut to FP16 before.
        for name in (*node.output, *(node.input[i] for i in slots.inputs[place])):
            if ranges.largest.get(name, 0) > SAFE:
                what = "writes" if name in node.output else "reads"
                yield place, f"{what} values up to {ranges.largest[name]:.3g}, above {SAFE:g}"
                break
        key = node.output[0]
        # Of positive values, as after Relu, the sum is reached; so it keeps the margin of a value.
        if (total := ranges.sums.get(key, 0)) > SAFE:
            yield place, f"adds up to {total:.3g}, above {SAFE:g}"
        # Products of both signs reach the sum of their absolute values in no order of adding: the margin is in there.
        if (total := ranges.products.get(key, 0)) > LARGEST:
            yield place, f"its products' absolute values add up to {total:.3g}, above {LARGEST:g}"
        whole = node.op_type == "Cast" and view.types.get(node.input[0]) != FLOAT
        if whole and ranges.largest.get(key, 0) > _EXACT_INTEGERS:
            yield place, f"gives integers up to {ranges.largest[key]:.3g}, and FP16 is exact to {_EXACT_INTEGERS} only"


def _by_small_values(view: GraphView, ranges: Ranges) -> Iterator[tuple[int, str]]:
    """Divisions, roots and logarithms of values that FP16 would round to few digits or to 0, and who gives them."""
    for place, node in enumerate(view.nodes):
        low = ranges.smallest.get(node.output[0], np.inf)
        if low < SMALLEST:
            yield place, f"{node.op_type} of values down to {low:.3g}, below FP16's normal numbers"
            yield from _statistics(view, node.input[DIVISORS[node.op_type]], "the small divisor")


def _by_constants(slots: Slots) -> Iterator[tuple[int, str]]:
    """Nodes with a constant that FP16 loses: an epsilon, or weights of which rounding takes more than a hundredth."""
    view = slots.view
    for place, node in enumerate(view.nodes):
        for i in slots.inputs[place]:
            value = view.constants.get(node.input[i])
            if value is None or not value.any():
                continue
            if node.op_type in _PAIR:
                if (low := np.abs(value).min()) < SMALLEST:
                    # Who reads it too: a cast between would keep it from multiplying integers.
                    for reader in (place, *(r for name in node.output for r in view.readers[name])):
                        yield reader, f"a scale of {low:.3g} is below FP16's normal numbers"
            elif value.size == 1 and abs(value.item()) < SMALLEST:
                yield place, f"the constant {value.item():.3g} is below FP16's normal numbers"
                for other in node.input:
                    yield from _statistics(view, other, f"the epsilon {value.item():.3g}")
                yield from _dividers(view, place, value.item())
            elif node.op_type in _SCALED and i < 2 and np.isfinite(value).all() and (lost := _lost(value)) > _LOST:
                yield place, f"FP16 loses {lost:.0%} of its weights {node.input[i]}"


def _lost(value: np.ndarray) -> float:
    exact = value.astype(np.float64)
    rounded = np.nan_to_num(to_half(value).astype(np.float64), posinf=0, neginf=0)
    return float(np.linalg.norm(exact - rounded) / np.linalg.norm(exact))


def _statistics(view: GraphView, name: str, whose: str) -> Iterator[tuple[int, str]]:
    """A variance or norm that a small value guards is itself small: back to what it is taken of."""
    place = view.producer.get(name)
    while place is not None:
        node = view.nodes[place]
        square = node.op_type == "Mul" and node.input[0] == node.input[1]
        if not (square or node.op_type in _STATISTICS | _MOVES):
            return
        if node.op_type not in _MOVES:
            yield place, f"computes what {whose} guards"
        place = view.producer.get(node.input[0])


def _dividers(view: GraphView, place: int, epsilon: float) -> Iterator[tuple[int, str]]:
    """Who divides by, or takes a root or logarithm of, a value that may be no larger than epsilon."""
    for name in view.nodes[place].output:
        for reader in view.readers[name]:
            node = view.nodes[reader]
            at = DIVISORS.get(node.op_type)
            if (at is not None and node.input[at] == name) or (node.op_type == "Pow" and node.input[0] == name):
                yield reader, f"{node.op_type} of a value that may be as small as the epsilon {epsilon:.3g}"
            if node.op_type in _MOVES | {"Pow", "Sqrt"}:
                yield from _dividers(view, reader, epsilon)


def _by_scores(view: GraphView) -> Iterator[tuple[int, str]]:
    """What is done to scores that leave the graph as numbers; where class ids leave it, FP16 is fine."""
    for output in view.model.graph.output:
        place = view.producer.get(output.name) if view.types.get(output.name) == FLOAT else None
        while place is not None and view.nodes[place].op_type in _SCORES:
            yield place, "scores are returned"
            place = view.producer.get(view.nodes[place].input[0])
