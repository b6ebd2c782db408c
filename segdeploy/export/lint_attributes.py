"""Rows about attributes, and about inputs that TensorRT wants as constants, of operators that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto as T

from segdeploy.export.lint_graph import Node
from segdeploy.export.lint_row import RTX, STANDARD_ONLY, Row

if TYPE_CHECKING:
    from segdeploy.export.lint_row import When

_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn")
_LARGEST_K = 3840
_FLOATS = (T.FLOAT, T.FLOAT16, T.BFLOAT16, T.DOUBLE)


def _is(key: str, *values: object) -> When:
    """An attribute has one of these values; the detail names it."""
    return lambda node: f"{key}={node.attributes[key]}" if node.attributes.get(key) in values else ""


def _is_not(key: str, *values: object) -> When:
    """An attribute is given and has none of these values."""
    return lambda node: f"{key}={node.attributes[key]}" if node.attributes.get(key, values[0]) not in values else ""


def _varies(*inputs: int) -> When:
    """One of these inputs is not a constant."""
    return lambda node: any(not node.is_constant(i) for i in inputs)


def _dilated(node: Node) -> bool:
    return set(node.attributes.get("dilations", [1])) != {1}


def _scales_axes(node: Node) -> bool:
    axes, rank = node.attributes.get("axes"), len(node.value(0).shape or ())
    return bool(axes and not node.is_constant(2) and list(axes) != list(range(rank)))


def _outer_linear(node: Node) -> bool:
    """A linear Resize by factors over more than the last three sides."""
    scales = node.constant(2)
    return node.attributes.get("mode") == "linear" and scales is not None and bool((scales[:-3] != 1).any())


def _scales_vary(node: Node) -> bool:
    """Factors that are not known while building: shapes may be, data and inputs of the graph not."""
    return node.input(2) not in node.graph.from_shapes


def _large_k(node: Node) -> bool:
    k = node.constant(1)
    return k is not None and bool((k >= _LARGEST_K).any())


def _float_range(node: Node) -> bool:
    return node.value(0).type in _FLOATS and not node.graph.from_shapes.issuperset(node.proto.input)


def _pads_differ(node: Node) -> bool:
    pads = list(node.attributes.get("pads", []))
    return pads[: len(pads) // 2] != pads[len(pads) // 2 :]


def _vector_times_stack(node: Node) -> bool:
    left, right = node.value(0).shape, node.value(1).shape
    return left is not None and right is not None and len(left) == 1 and len(right) > 2


def _uneven_split(node: Node) -> bool:
    """More parts than `side / ceil(side / parts)` leaves something for."""
    shape, parts = node.value(0).shape, node.attributes.get("num_outputs")
    side = shape[node.attributes.get("axis", 0)] if shape else -1
    return bool(parts and side > 0 and side - (parts - 1) * -(-side // parts) < 0)


def _trains(node: Node) -> bool:
    mode = node.constant(2)
    return not node.is_constant(2) or (mode is not None and bool(mode.any()))


def _attention(node: Node) -> str:
    """What of Attention TensorRT leaves out; the detail names it."""
    unlike = [f"input {i}" for i in (4, 5, 6) if node.input(i)] if node.outputs() > 1 else []
    unlike += ["more than one output"] if node.outputs() > 1 else []
    unlike += [key for key in ("softcap", "softmax_precision") if node.attributes.get(key)]
    unlike += ["a mask beside is_causal"] if node.input(3) and node.attributes.get("is_causal") else []
    keys, values = node.value(1).shape, node.value(2).shape
    unlike += ["keys and values of different shapes"] if keys and values and keys != values else []
    return ", ".join(unlike)


def _row(name: str, operators: str, when: When, reason: str, fix: str, **more: object) -> Row:
    """A row of what every TensorRT refuses while parsing; `more` says otherwise."""
    known = {"severity": "error", "source": "RTX; operators.md", "rtx": "parser"} | more
    return Row(name=name, operators=operators, when=when, reason=reason, fix=fix, **known)  # type: ignore[arg-type]


_REDUCTIONS = """
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
_CONSTANT = "make it an initializer (the exporter does so for a fixed size)"

ROWS = (
    _row(
        "antialias",
        "Resize",
        _is("antialias", 1),
        "an antialiased Resize",
        "resize without it, or once before the network",
    ),
    _row(
        "resize-coordinates",
        "Resize",
        _is_not("coordinate_transformation_mode", *_COORDINATES),
        f"a Resize whose coordinates are none of {', '.join(_COORDINATES)}",
        "use half_pixel or align_corners",
    ),
    _row(
        "resize-aspect",
        "Resize",
        _is_not("keep_aspect_ratio_policy", "stretch"),
        "a Resize that keeps the aspect ratio",
        "give it the size that is wanted",
    ),
    _row(
        "resize-axes",
        "Resize",
        _scales_axes,
        "a Resize by varying factors for some of its axes",
        "give a factor for every axis, 1 for those that stay",
    ),
    _row(
        "resize-scales",
        "Resize",
        _scales_vary,
        "a Resize whose factors are not known while building",
        "give it a constant, or sizes in place of factors",
    ),
    _row("upsample-scales", "Upsample", _varies(1), "an Upsample whose factors vary", _CONSTANT),
    _row(
        "resize-outer",
        "Resize Upsample",
        _outer_linear,
        "a linear Resize over more than the last three sides",
        "resize height and width alone",
        source="RTX",
    ),
    _row(
        "resize-cubic",
        "Resize",
        _is("mode", "cubic"),
        "a cubic Resize, which is taken and not documented",
        "use linear",
        severity="warning",
        source="operators.md: nearest and linear; RTX: taken",
        rtx="",
    ),
    _row(
        "pool-indices",
        "MaxPool",
        lambda node: node.outputs() > 1,
        "max pooling that also gives indices (return_indices)",
        "join with skips in place of unpooling",
    ),
    _row(
        "pool-dilation",
        "MaxPool AveragePool LpPool",
        _dilated,
        "dilated pooling",
        "pool with a larger kernel, or use a dilated convolution",
    ),
    _row("pool-norm", "LpPool", _is_not("p", 2, 1), "LpPool of another norm than 1 or 2", "use norm 2", source="RTX"),
    _row(
        "norm-outputs",
        "LayerNormalization",
        lambda node: node.outputs() > 1,
        "LayerNormalization whose mean or deviation is read too",
        "compute them with ReduceMean",
    ),
    _row(
        "norm-training",
        "BatchNormalization",
        _is("training_mode", 1),
        "BatchNormalization in training mode",
        "call .eval() before the export",
    ),
    _row("dropout", "Dropout", _trains, "Dropout in training mode", "call .eval() before the export"),
    _row(
        "reduce-axes",
        _REDUCTIONS,
        _varies(1),
        "a reduction whose axes are not a constant",
        _CONSTANT,
    ),
    _row("squeeze-axes", "Squeeze Unsqueeze", _varies(1), "axes that are not a constant", _CONSTANT),
    _row("window-step", "STFT", _varies(1, 2), "a window or step that is not a constant", _CONSTANT),
    _row(
        "scan-axis",
        "CumSum",
        _varies(1),
        "CumSum whose axis is not a constant",
        _CONSTANT,
        source="operators.md; RTX: taken",
        versions=STANDARD_ONLY,
        rtx="",
    ),
    _row(
        "one-hot-depth",
        "OneHot",
        _varies(1),
        "OneHot whose depth is not a constant",
        _CONSTANT,
    ),
    _row("top-k-size", "TopK", _large_k, f"TopK of {_LARGEST_K} or more", "pick fewer", source="RTX; operators.md"),
    _row(
        "top-k-sorted",
        "TopK",
        _is("sorted", 0),
        "TopK that need not sort",
        "let it sort",
        source="operators.md",
        versions=STANDARD_ONLY,
        rtx="",
    ),
    _row(
        "mod-float",
        "Mod",
        lambda node: node.value(0).type in (*_FLOATS, T.INT8) and not node.attributes.get("fmod"),
        "Mod of floats, or of INT8",
        "use fmod=1, or INT32",
        source="RTX; parser",
    ),
    _row("range-half", "Range", lambda n: n.value(0).type in (T.FLOAT16, T.BFLOAT16), "Range in half precision",
         "count in INT64 or FLOAT and Cast", source="RTX"),
    _row("range-float", "Range", _float_range, "Range over floats that data decide", "count in INT64 and Cast",
         source="RTX"),
    _row("loop-trips", "Loop", lambda node: node.input(0) not in node.graph.from_shapes,
         "a Loop whose number of rounds data decide", "let constants or shapes decide it", source="RTX"),
    _row("random-type", "RandomUniform RandomUniformLike RandomNormal RandomNormalLike", _is("dtype", T.DOUBLE),
         "random numbers in double precision", "draw FLOAT", source="RTX"),
    _row("tensor-scatter", "TensorScatter", lambda n: len(n.value(0).shape or ()) != 4 or bool(_is_not("mode", "linear")(n)),
         "TensorScatter of other than four dimensions, or circular", "use ScatterND"),
    _row(
        "scatter-reduction",
        "ScatterND",
        _is_not("reduction", "none"),
        "ScatterND that adds up or multiplies",
        "write each place once, or multiply with a matrix",
    ),
    _row(
        "scatter-elements-reduction",
        "ScatterElements",
        _is_not("reduction", "none"),
        "ScatterElements that adds up or multiplies (index_add, scatter_reduce), a plugin that RTX does not ship",
        "write each place once, or multiply with a matrix",
        source="RTX; changelog: since 10.0",
        versions=(RTX,),
    ),
    _row(
        "deform-pads",
        "DeformConv",
        _pads_differ,
        "DeformConv whose padding differs between beginning and end",
        "pad before it",
        source="operators.md",
        versions=STANDARD_ONLY,
        rtx="",
    ),
    _row("attention", "Attention", _attention, "Attention with what TensorRT leaves out",
         "export with opset 20, which spells it out in MatMul and Softmax"),
    _row(
        "attention-kernel",
        "Attention",
        lambda _: True,
        "Attention, which TensorRT for RTX builds for few shapes and types",
        "export with opset 20, which spells it out in MatMul and Softmax",
        source="RTX: Attention operation was not supported by any backend",
        severity="warning",
        versions=(RTX,),
        rtx="",
    ),
    _row(
        "vector-matmul",
        "MatMul",
        _vector_times_stack,
        "MatMul of a vector with a stack of matrices",
        "Unsqueeze the vector first",
        source="RTX: reshape changes volume",
        versions=(RTX,),
    ),
    _row(
        "uneven-split",
        "Split",
        _uneven_split,
        "a Split into more parts than there is to share",
        "give the sizes of the parts",
        source="RTX: the last chunk size is negative",
    ),
    _row(
        "constant-kind",
        "Constant",
        lambda node: bool({"sparse_value", "value_string", "value_strings"} & set(node.attributes)),
        "a Constant that is sparse or text",
        "store a dense tensor of numbers",
    ),
)  # fmt: skip
