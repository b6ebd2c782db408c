"""Rows about attributes of operators that TensorRT has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto as T

from segdeploy.export.lint_row import RTX, STANDARD_ONLY, refused

if TYPE_CHECKING:
    from segdeploy.export.lint_graph import Node
    from segdeploy.export.lint_row import When

_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn")


def _is(key: str, *values: object) -> When:
    """An attribute has one of these values; the detail names it."""
    return lambda node: f"{key}={node.attributes[key]}" if node.attributes.get(key) in values else ""


def _is_not(key: str, *values: object) -> When:
    """An attribute is given and has none of these values."""
    return lambda node: f"{key}={node.attributes[key]}" if node.attributes.get(key, values[0]) not in values else ""


def _dilated(node: Node) -> bool:
    return set(node.attributes.get("dilations", [1])) != {1}


def _pads_differ(node: Node) -> bool:
    pads = list(node.attributes.get("pads", []))
    return pads[: len(pads) // 2] != pads[len(pads) // 2 :]


def _attention(node: Node) -> str:
    """What of Attention TensorRT leaves out; the detail names it."""
    unlike = [f"input {i}" for i in (4, 5, 6) if node.input(i)] if node.outputs() > 1 else []
    unlike += ["more than one output"] if node.outputs() > 1 else []
    unlike += [key for key in ("softcap", "softmax_precision") if node.attributes.get(key)]
    unlike += ["a mask beside is_causal"] if node.input(3) and node.attributes.get("is_causal") else []
    keys, values = node.value(1).shape, node.value(2).shape
    unlike += ["keys and values of different shapes"] if keys and values and keys != values else []
    return ", ".join(unlike)


ROWS = (
    refused(
        "antialias",
        "Resize",
        _is("antialias", 1),
        "an antialiased Resize",
        "resize without it, or once before the network",
    ),
    refused(
        "resize-coordinates",
        "Resize",
        _is_not("coordinate_transformation_mode", *_COORDINATES),
        f"a Resize whose coordinates are none of {', '.join(_COORDINATES)}",
        "use half_pixel or align_corners",
    ),
    refused(
        "resize-aspect",
        "Resize",
        _is_not("keep_aspect_ratio_policy", "stretch"),
        "a Resize that keeps the aspect ratio",
        "give it the size that is wanted",
    ),
    refused(
        "resize-cubic",
        "Resize",
        _is("mode", "cubic"),
        "a cubic Resize, which is taken and not documented",
        "use linear",
        severity="warning",
        source="operators.md: nearest and linear; RTX: taken",
        rtx="",
    ),
    refused(
        "pool-indices",
        "MaxPool",
        lambda node: node.outputs() > 1,
        "max pooling that also gives indices (return_indices)",
        "join with skips in place of unpooling",
    ),
    refused(
        "pool-dilation",
        "MaxPool AveragePool LpPool",
        _dilated,
        "dilated pooling",
        "pool with a larger kernel, or use a dilated convolution",
    ),
    refused(
        "pool-norm", "LpPool", _is_not("p", 2, 1), "LpPool of another norm than 1 or 2", "use norm 2", source="RTX"
    ),
    refused(
        "norm-outputs",
        "LayerNormalization",
        lambda node: node.outputs() > 1,
        "LayerNormalization whose mean or deviation is read too",
        "compute them with ReduceMean",
    ),
    refused(
        "norm-training",
        "BatchNormalization",
        _is("training_mode", 1),
        "BatchNormalization in training mode",
        "call .eval() before the export",
    ),
    refused(
        "top-k-sorted",
        "TopK",
        _is("sorted", 0),
        "TopK that need not sort",
        "let it sort",
        source="operators.md",
        versions=STANDARD_ONLY,
        rtx="",
    ),
    refused(
        "random-type",
        "RandomUniform RandomUniformLike RandomNormal RandomNormalLike",
        _is("dtype", T.DOUBLE),
        "random numbers in double precision",
        "draw FLOAT",
        source="RTX",
    ),
    refused(
        "scatter-reduction",
        "ScatterND",
        _is_not("reduction", "none"),
        "ScatterND that adds up or multiplies",
        "write each place once, or multiply with a matrix",
    ),
    refused(
        "scatter-elements-reduction",
        "ScatterElements",
        _is_not("reduction", "none"),
        "ScatterElements that adds up or multiplies (index_add, scatter_reduce), a plugin that RTX does not ship",
        "write each place once, or multiply with a matrix",
        source="RTX; changelog: since 10.0",
        versions=(RTX,),
    ),
    refused(
        "deform-pads",
        "DeformConv",
        _pads_differ,
        "DeformConv whose padding differs between beginning and end",
        "pad before it",
        source="operators.md",
        versions=STANDARD_ONLY,
        rtx="",
    ),
    refused(
        "attention",
        "Attention",
        _attention,
        "Attention with what TensorRT leaves out",
        "export with opset 20, which spells it out in MatMul and Softmax",
    ),
    refused(
        "attention-kernel",
        "Attention",
        lambda _: True,
        "Attention, for which TensorRT for RTX has kernels of few shapes, and which can end its builder in a crash",
        "export with opset 20, which spells it out in MatMul and Softmax",
        source="RTX: Attention operation was not supported by any backend; or a segmentation fault",
        versions=(RTX,),
        rtx="builder",
    ),
    refused(
        "constant-kind",
        "Constant",
        lambda node: bool({"sparse_value", "value_string", "value_strings"} & set(node.attributes)),
        "a Constant that is sparse or text",
        "store a dense tensor of numbers",
    ),
)
