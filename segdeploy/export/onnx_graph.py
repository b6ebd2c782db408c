"""The ONNX file: uint8 image in, uint8 mask out, everything between inside the graph."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from segdeploy.bundle import spec_metadata
from segdeploy.errors import ExportError
from segdeploy.export.graph import without_weights
from segdeploy.export.lint_graph import LAYER_KEY
from segdeploy.export.trace import OPSET, reason, trace
from segdeploy.files import replacing
from segdeploy.model.segmenter import Deployed

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.model.segmenter import Segmenter
    from segdeploy.model.spec import ModelSpec

LARGEST = 2**31 - 1  # bytes: what protobuf, and so one ONNX file, holds
TRACED = 512  # pixels a side, at least, that a graph of free height and width is traced with


def export_onnx(segmenter: Segmenter, spec: ModelSpec, path: Path, *, dynamic_size: bool = False) -> dict[str, Any]:
    """Write `path`: one file, opset 20, `image` uint8 (batch, H, W, 3) -> `mask` uint8 (batch, H, W).

    The batch is dynamic; height and width are the model's, or free with `dynamic_size`. The ModelSpec is in the
    file's metadata.

    Returns:
        Facts about the file: opset, interface, tool versions.

    Raises:
        ExportError: torch cannot trace the model, it has too many weights for one file, or the graph is not what was
            asked for.
    """
    weights = sum(t.numel() * t.element_size() for t in segmenter.state_dict().values())
    if weights > LARGEST:
        raise ExportError(
            f"{spec.encoder.name} + {spec.decoder.name}: has {weights / 1e9:.1f} GB of weights, and an ONNX file holds "
            f"{LARGEST / 1e9:.1f} GB; train a smaller encoder"
        )
    module = Deployed(segmenter, spec.preprocessing).eval().cpu()
    sides = (spec.preprocessing.height, spec.preprocessing.width)
    # torch takes a side that is 1 in the example for 1 always, also that of a coarse map inside the model.
    seen = [-(-TRACED // side) * side for side in sides] if dynamic_size else sides
    example = torch.zeros((2, *seen, 3), dtype=torch.uint8)
    free = {0: "batch", 1: "height", 2: "width"} if dynamic_size else {0: "batch"}
    size = ("height", "width") if dynamic_size else sides
    try:
        program = trace(module, example, free, ["mask"])
    except Exception as e:  # the exporter's errors have no common base
        raise ExportError(
            f"{spec.encoder.name} + {spec.decoder.name}: torch cannot export it: {reason(e)[:300]}"
        ) from e
    model = program.model_proto
    _strip(model)
    fix_scales(model)
    split_norms(model)
    for key, value in spec_metadata(spec).items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "segdeploy"
    onnx.checker.check_model(model, full_check=True)
    check_interface(model, size)
    with replacing(path) as part:
        part.write_bytes(model.SerializeToString())
    return {
        "opset": OPSET,
        "input": {"name": "image", "dtype": "uint8", "shape": ["batch", *size, 3], "color_order": "RGB"},
        "output": {"name": "mask", "dtype": "uint8", "shape": ["batch", *size]},
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
    }


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes about source files: absolute paths of the machine that exported.

    Of each node's notes the path of its module stays, as `segdeploy.layer`: messages about a node name it.
    """
    del model.metadata_props[:]
    model.doc_string = ""
    for holder in (model.graph, *model.functions):
        holder.doc_string = ""
        del holder.metadata_props[:]
        for node in holder.node:
            node.doc_string = ""
            layer = _layer(node)
            del node.metadata_props[:]
            if layer:
                node.metadata_props.add(key=LAYER_KEY, value=layer)
        for value in holder.value_info:
            del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def _layer(node: onnx.NodeProto) -> str:
    """The path of the innermost module that a node was traced in, such as `encoder.body.blocks.1.0.bn2`."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
    modules = ast.literal_eval(scopes)[:-1]  # the last is the operation itself
    return str(modules[-1]).removeprefix("segmenter.") if modules else ""


def fix_scales(model: onnx.ModelProto) -> None:
    """Give every Resize by a whole factor its factor as a constant, in place of a size computed from shapes.

    The result is the same to the bit; runtimes fuse and block such nodes, and the shape arithmetic goes away.
    A Resize whose sizes are not known, or whose factor is not whole, stays as it is.
    """
    inferred = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    for node in model.graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or not node.input[3]:
            continue
        before, after = shapes.get(node.input[0], [])[2:], shapes.get(node.output[0], [])[2:]
        # A side that is not known reads as 0 here.
        known = len(before) == len(after) == 2 and all(before) and all(after)
        if not known or after[0] % before[0] or after[1] % before[1]:
            continue
        scales = np.array([1, 1, after[0] // before[0], after[1] // before[1]], np.float32)
        name = f"{node.output[0]}.scales"
        model.graph.initializer.append(onnx.numpy_helper.from_array(scales, name))
        del node.input[2:]
        node.input.append(name)
    _drop_unused(model.graph)


def split_norms(model: onnx.ModelProto) -> None:
    """Take the L2 norm over rows and columns as the norm over rows of the norms over columns.

    That is the same number, but onnxruntime's one reduction over both sides of (N, H, W, C), as in ConvNeXt V2's
    response normalisation, walks memory channel by channel and is two to three times as slow.
    """
    graph = model.graph
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    for place, node in reversed(list(enumerate(graph.node))):
        axes = constants.get(node.input[1]) if node.op_type == "ReduceL2" and len(node.input) > 1 else None
        kept = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        if axes is None or axes.tolist() != [1, 2] or not kept:
            continue
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.name, inner.output[0] = f"{node.name}.columns", f"{node.output[0]}.columns"
        node.input[0] = inner.output[0]
        for one, axis in ((inner, 2), (node, 1)):
            one.input[1] = f"{one.output[0]}.axis"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array([axis], np.int64), one.input[1]))
        graph.node.insert(place, inner)
    _drop_unused(graph)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
        unused = [node for node in graph.node if not read & set(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    for constant in [c for c in graph.initializer if c.name not in read]:
        graph.initializer.remove(constant)


def check_interface(model: onnx.ModelProto, size: tuple[int | str, int | str]) -> None:
    """Read names, types and dimensions back from the graph; ExportError where they are not as asked.

    The exporter has been known to ignore what it was told about dynamic dimensions.
    """
    found = [_describe(v) for v in (*model.graph.input, *model.graph.output)]
    uint8 = onnx.TensorProto.UINT8
    wanted = [("image", uint8, ["batch", *size, 3]), ("mask", uint8, ["batch", *size])]
    if found != wanted:
        raise ExportError(f"expected the graph {wanted}, torch wrote {found}")
    opsets = {o.domain: o.version for o in model.opset_import}
    if opsets.get("") != OPSET:
        raise ExportError(f"expected opset {OPSET}, torch wrote {opsets}")


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim]
