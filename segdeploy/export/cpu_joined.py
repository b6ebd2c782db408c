"""1x1 convolutions of joined maps of several sizes, computed at each map's own size: SegFormer's fusion.

A 1x1 convolution of a concatenation is the sum of one for each part; and it mixes channels where an interpolation mixes
places, so it can come before the interpolation, at a quarter of the arithmetic for each halving. Where the part itself
comes out of a 1x1 convolution, the two are one, of the product of their weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segdeploy.export.cpu_patch import attributes

if TYPE_CHECKING:
    import onnx

    from segdeploy.export.cpu_patch import Patch

_KEEPS_A_CONSTANT = {b"half_pixel", b"pytorch_half_pixel", b"asymmetric", b"align_corners"}


def split_joined(patch: Patch) -> int:
    """Rewrite every Concat -> Conv of that kind with an enlarged part; how many there were."""
    return sum(_split(patch, node) for node in list(patch.graph.node) if node.op_type == "Concat")


def _split(patch: Patch, concat: onnx.NodeProto) -> bool:
    conv = patch.sole_reader(concat.output[0])
    weight = patch.weight_of(conv, 1)
    parts, widths = list(concat.input), [patch.channels.get(name, 0) for name in concat.input]
    enlarged = [_enlarged(patch, name) for name in parts]
    if conv is None or weight is None or attributes(concat)["axis"] != 1 or len(parts) < 2:
        return False
    if not all(widths) or not any(enlarged):
        return False
    exact = weight[:, :, 0, 0].astype(np.float64)
    bias = patch.value(conv.input[2]).astype(np.float64) if len(conv.input) > 2 else np.zeros(len(exact))
    gone = [concat, *filter(None, enlarged)]
    sources, kernels = [], []
    for name, resize, kernel in zip(parts, enlarged, np.split(exact, np.cumsum(widths)[:-1], axis=1), strict=True):
        source = name if resize is None else resize.input[0]
        before = patch.producer(source)
        inner = patch.weight_of(before, 1)
        alone = patch.sole_reader(source) is not None
        if before is not None and inner is not None and alone and inner.shape[1] <= inner.shape[0]:
            if len(before.input) > 2:  # a constant, which an enlargement keeps
                bias = bias + kernel @ patch.value(before.input[2]).astype(np.float64)
            kernel, source = kernel @ inner[:, :, 0, 0].astype(np.float64), before.input[0]
            gone.append(before)
        sources.append(source)
        kernels.append(kernel)
    place = patch.replace(conv, gone)
    total = ""
    for i, (source, resize, kernel) in enumerate(zip(sources, enlarged, kernels, strict=True)):
        given = [source, place.constant(f"part{i}.weight", kernel[:, :, None, None].astype(np.float32))]
        if not total:
            given.append(place.constant("bias", bias.astype(np.float32)))
        made = place.add("Conv", given, f"part{i}", kernel_shape=[1, 1])
        if resize is not None:
            made = place.add("Resize", [made, *resize.input[1:]], f"part{i}.enlarged", **attributes(resize))
        total = place.add("Add", [total, made], f"sum{i}", last=i == len(parts) - 1) if total else made
    place.close()
    return True


def _enlarged(patch: Patch, name: str) -> onnx.NodeProto | None:
    """The interpolation by constant factors that gives a part, and gives it to no one else."""
    node = patch.producer(name)
    scales = patch.scales_of(node)
    if node is None or scales is None or scales[:2] != [1, 1] or min(scales) < 1 or patch.sole_reader(name) is None:
        return None
    form = attributes(node)
    linear = form.get("mode") in (b"nearest", b"linear")
    return node if linear and form.get("coordinate_transformation_mode") in _KEEPS_A_CONSTANT else None
