"""Rows about what operators read: inputs that TensorRT wants as constants, and shapes that it does not take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto as T

from segdeploy.export.lint_row import RTX, STANDARD_ONLY, refused

if TYPE_CHECKING:
    from segdeploy.export.lint_graph import Node
    from segdeploy.export.lint_row import When

_LARGEST_K = 3840
_FLOATS = (T.FLOAT, T.FLOAT16, T.BFLOAT16, T.DOUBLE)
_REDUCTIONS = """
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
_CONSTANT = "make it an initializer (the exporter does so for a fixed size)"


def _varies(*inputs: int) -> When:
    """One of these inputs is not a constant."""
    return lambda node: any(not node.is_constant(i) for i in inputs)


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


def _endless_scan(node: Node) -> bool:
    carried = len(node.proto.input) - 2
    return len(node.proto.output) > carried and node.input(0) not in node.graph.from_shapes


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


def _other_scatter(node: Node) -> bool:
    return len(node.value(0).shape or ()) != 4 or node.attributes.get("mode", "linear") != "linear"


ROWS = (
    refused(
        "resize-axes",
        "Resize",
        _scales_axes,
        "a Resize by varying factors for some of its axes",
        "give a factor for every axis, 1 for those that stay",
    ),
    refused(
        "resize-scales",
        "Resize",
        _scales_vary,
        "a Resize whose factors are not known while building",
        "give it a constant, or sizes in place of factors",
    ),
    refused("upsample-scales", "Upsample", _varies(1), "an Upsample whose factors vary", _CONSTANT),
    refused(
        "resize-outer",
        "Resize Upsample",
        _outer_linear,
        "a linear Resize over more than the last three sides",
        "resize height and width alone",
        source="RTX",
    ),
    refused("dropout", "Dropout", _trains, "Dropout in training mode", "call .eval() before the export"),
    refused(
        "reduce-axes",
        _REDUCTIONS,
        _varies(1),
        "a reduction whose axes are not a constant",
        _CONSTANT,
    ),
    refused("squeeze-axes", "Squeeze Unsqueeze", _varies(1), "axes that are not a constant", _CONSTANT),
    refused("window-step", "STFT", _varies(1, 2), "a window or step that is not a constant", _CONSTANT),
    refused(
        "scan-axis",
        "CumSum",
        _varies(1),
        "CumSum whose axis is not a constant",
        _CONSTANT,
        source="operators.md; RTX: taken",
        versions=STANDARD_ONLY,
        rtx="",
    ),
    refused(
        "one-hot-depth",
        "OneHot",
        _varies(1),
        "OneHot whose depth is not a constant",
        _CONSTANT,
    ),
    refused(
        "top-k-size",
        "TopK",
        _large_k,
        f"TopK of {_LARGEST_K} or more",
        "pick fewer",
        source="RTX; operators.md",
        rtx="builder",
    ),
    refused(
        "mod-float",
        "Mod",
        lambda node: node.value(0).type in (*_FLOATS, T.INT8) and not node.attributes.get("fmod"),
        "Mod of floats, or of INT8",
        "use fmod=1, or INT32",
        source="RTX; parser",
    ),
    refused(
        "range-half",
        "Range",
        lambda n: n.value(0).type in (T.FLOAT16, T.BFLOAT16),
        "Range in half precision",
        "count in INT64 or FLOAT and Cast",
        source="RTX",
    ),
    refused(
        "range-float",
        "Range",
        _float_range,
        "Range over floats that data decide",
        "count in INT64 and Cast",
        source="RTX",
    ),
    refused(
        "loop-scan",
        "Loop",
        _endless_scan,
        "a Loop that gathers a result of each round, and whose number of rounds data decide",
        "let constants or shapes decide it",
        source="RTX; operators.md: scan output length cannot be dynamic",
    ),
    refused(
        "tensor-scatter",
        "TensorScatter",
        _other_scatter,
        "TensorScatter of other than four dimensions, or circular",
        "use ScatterND",
    ),
    refused(
        "vector-matmul",
        "MatMul",
        _vector_times_stack,
        "MatMul of a vector with a stack of matrices",
        "Unsqueeze the vector first",
        source="RTX: reshape changes volume",
        versions=(RTX,),
    ),
    refused(
        "uneven-split",
        "Split",
        _uneven_split,
        "a Split into more parts than there is to share",
        "give the sizes of the parts",
        source="RTX: the last chunk size is negative",
    ),
)
