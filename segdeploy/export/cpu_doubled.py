"""3x3 convolutions of maps that were doubled by nearest neighbour, computed at half the size: U-Net's widest ones.

Of a doubled map the three taps of a side fall on two cells, so in each of the four phases of the result a 3x3 kernel
is a 2x2 kernel over the cells, whose weights are sums of its own: four small convolutions, interleaved, take 4 products
where the large one takes 9 (Aitken et al. 2017, https://arxiv.org/abs/1707.02937, read backwards). What a skip brings
is convolved by itself and added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.export.cpu_patch import attributes

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from segdeploy.export.cpu_patch import Patch

WORTH = 32
"""Channels of the doubled map, at least: with fewer the interleaving costs more than the products that are saved."""
_TAPS = (([0], [1, 2]), ([0, 1], [2]))
"""By phase, the taps of a side that fall on its first and on its second cell."""


def split_doubled(patch: Patch) -> int:
    """Rewrite every Resize -> (Concat ->) Conv of that kind, where nothing else reads what is between; how many."""
    return sum(_split(patch, node) for node in list(patch.graph.node) if _doubles(patch, node))


def _doubles(patch: Patch, node: onnx.NodeProto) -> bool:
    form = attributes(node)
    plain = [form.get(key) for key in ("mode", "nearest_mode", "coordinate_transformation_mode")]
    return patch.scales_of(node) == [1, 1, 2, 2] and plain == [b"nearest", b"floor", b"asymmetric"]


def _split(patch: Patch, resize: onnx.NodeProto) -> bool:
    doubled = resize.output[0]
    reader = patch.sole_reader(doubled)
    concat = reader if reader is not None and reader.op_type == "Concat" and attributes(reader)["axis"] == 1 else None
    conv = patch.sole_reader(concat.output[0]) if concat is not None else reader
    weight = patch.weight_of(conv, 3)
    inputs = list(concat.input) if concat is not None else [doubled]
    widths = [patch.channels.get(name, 0) for name in inputs]
    at = inputs.index(doubled)
    if conv is None or weight is None or not all(widths) or widths[at] < WORTH:
        return False
    place = patch.replace(conv, [resize, *([concat] if concat is not None else [])])
    others, bias = [name for name in inputs if name != doubled], list(conv.input[2:])
    first, last = sum(widths[:at]), sum(widths[: at + 1])
    phases = []
    for i, kernel in enumerate(phase_weights(weight[:, first:last])):
        row, column = divmod(i, 2)
        given = [resize.input[0], place.constant(f"phase{i}.weight", kernel), *([] if others else bias)]
        pads = [1 - row, 1 - column, row, column]
        phases.append(place.add("Conv", given, f"phase{i}", pads=pads, kernel_shape=[2, 2]))
    joined = place.add("Concat", phases, "phases", axis=1)
    whole = place.add("DepthToSpace", [joined], "whole", last=not others, blocksize=2, mode="DCR")
    if others:
        skip = others[0] if len(others) == 1 else place.add("Concat", others, "others", axis=1)
        kept = place.constant("skip.weight", np.delete(weight, np.s_[first:last], axis=1))
        skip = place.add("Conv", [skip, kept, *bias], "skip", pads=[1] * 4, kernel_shape=[3, 3])
        place.add("Add", [skip, whole], "sum", last=True)
    place.close()
    return True


def phase_weights(weight: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """A kernel (out, in, 3, 3) over a doubled map as four (out, in, 2, 2) over the map: row phases, then columns."""
    exact = weight.astype(np.float64)
    rows = [np.stack([exact[:, :, taps].sum(2) for taps in phase], 2) for phase in _TAPS]
    both = [np.stack([row[:, :, :, taps].sum(3) for taps in phase], 3) for row in rows for phase in _TAPS]
    return [kernel.astype(np.float32) for kernel in both]
