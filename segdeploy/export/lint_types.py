"""Rows about element types: which exist in TensorRT, and which operators take them.

A row looks at an operator only with types that ONNX allows there; what ONNX forbids is `onnx.checker`'s to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto as T

from segdeploy.export.lint_graph import CONTAINER, Node, type_names
from segdeploy.export.lint_row import RTX, STANDARD_ONLY, Row

if TYPE_CHECKING:
    from segdeploy.export.lint_row import When

MAX_RANK = 8
_FLOATS = (T.FLOAT, T.FLOAT16)
_INTS = (T.INT32, T.INT64)
_LOW = (T.FLOAT8E4M3FN, T.INT4, T.FLOAT4E2M1)
# Whatever else ONNX has, or will have, TensorRT has not.
_KNOWN = (T.UNDEFINED, *_FLOATS, T.BFLOAT16, T.DOUBLE, *_INTS, T.INT8, T.UINT8, T.BOOL, *_LOW)
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_ARITHMETIC = """
Abs Add Clip CumSum Div Einsum Gemm MatMul Max Mean Min Mod Mul Neg Pow Sub Sum ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""


def _touched(node: Node) -> list[int]:
    """Types of all that it reads and writes."""
    names = (*node.proto.input, *node.proto.output)
    return [node.graph.values[name].type for name in names if name in node.graph.values]


def _missing(node: Node) -> str:
    return type_names(sorted(set(_touched(node)) - {*_KNOWN, CONTAINER}))


def _uint8(node: Node) -> bool:
    """UINT8 is read by Cast, and written by a Cast that ends the graph; shapes and zero points hold no data."""
    operator, graph = node.operator, node.graph
    if operator in ("input", "Shape", "Size", *_QUANTIZING):
        return False
    written = [name for name in node.proto.output if graph.values.get(name) and graph.values[name].type == T.UINT8]
    if any(name not in graph.outputs for name in written) and operator != "Constant":
        return True
    if operator in ("Cast", "CastLike", "Constant", "Identity"):
        return False
    return bool(written) or node.value(0).type == T.UINT8 or (operator == "Where" and node.value(1).type == T.UINT8)


def _uint8_cast(node: Node) -> str:
    types = (node.value(0).type, node.result().type)
    others = [kind for kind in types if kind != T.UINT8]
    return type_names(others) if T.UINT8 in types and others and others[0] not in _FLOATS else ""


def _low_cast(node: Node) -> str:
    return type_names(kind for kind in (node.value(0).type, node.result().type) if kind in _LOW)


def _int8_constant(node: Node) -> bool:
    """An INT8 constant that something other than DequantizeLinear computes with."""
    if node.operator in ("input", "Constant", "Clip", *_QUANTIZING, "QLinearConv", "QLinearMatMul"):
        return False
    constants = node.graph.constants
    return any(name in constants and node.graph.values[name].type == T.INT8 for name in node.proto.input)


def _loose_int8(node: Node) -> bool:
    bounds = len(node.proto.input) > 1
    return (
        node.value(0).type == T.INT8 and bounds and not (node.input(1) and node.is_constant(1) and node.is_constant(2))
    )


def _int64(node: Node) -> bool:
    computed = set(node.proto.output) - node.graph.from_shapes
    return any(node.graph.values[name].type == T.INT64 for name in computed if name in node.graph.values)


def _double(node: Node) -> bool:
    return any(node.graph.values[name].type == T.DOUBLE for name in node.proto.output if name in node.graph.values)


def _rank(node: Node) -> str:
    results = (node.graph.values.get(name) for name in node.proto.output)
    largest = max((len(value.shape) for value in results if value and value.shape), default=0)
    return f"{largest}" if largest > MAX_RANK else ""


def _data_of(*types: int) -> When:
    """Whether the data that an operator reads are of one of these types; the detail names it."""

    def when(node: Node) -> str:
        kind = node.value(0).type
        return type_names([kind]) if kind in types else ""

    return when


def _no_kernel(name: str, operators: str, types: tuple[int, ...], versions: tuple[str, ...] = (RTX,)) -> Row:
    return Row(
        name=name,
        severity="error",
        operators=operators,
        when=_data_of(*types),
        reason="a type that TensorRT does not take here",
        fix="Cast to FLOAT before it",
        source="RTX; operators.md" if len(versions) > 1 else "RTX",
        versions=versions,
        rtx="parser",
    )


_EVERY = (*STANDARD_ONLY, RTX)

ROWS = (
    Row(
        name="type",
        severity="error",
        operators="*",
        when=_missing,
        reason="an element type that TensorRT does not have",
        fix="use FLOAT, FLOAT16, INT32, INT64 or BOOL; UINT8 at the graph's ends",
        source="RTX; operators.md",
        rtx="parser",
    ),
    Row(
        name="container",
        severity="error",
        operators="input",
        when=lambda node: node.result().type == CONTAINER,
        reason="an input that is no tensor",
        fix="give each tensor of a sequence an input of its own",
        source="RTX",
        rtx="parser",
    ),
    Row(
        name="uint8",
        severity="error",
        operators="*",
        when=_uint8,
        reason="UINT8 anywhere but at the graph's input and output",
        fix="Cast to FLOAT first, and to UINT8 last",
        source="RTX: no UINT8 for intermediate tensors; operators.md",
        rtx="parser",
    ),
    Row(
        name="uint8-cast",
        severity="error",
        operators="Cast CastLike",
        when=_uint8_cast,
        reason="UINT8 is converted from and to FLOAT and FLOAT16 only",
        fix="Cast through FLOAT (TensorRT for RTX takes it as it is)",
        source="types",
        versions=STANDARD_ONLY,
    ),
    Row(
        name="low-precision-cast",
        severity="error",
        operators="Cast CastLike",
        when=_low_cast,
        reason="FP8, INT4 and FP4 come of QuantizeLinear and go to DequantizeLinear, never through Cast",
        fix="use a QuantizeLinear and DequantizeLinear pair",
        source="RTX; operators.md: quantized types",
        rtx="builder",
    ),
    Row(
        name="int8-constant",
        severity="error",
        operators="*",
        when=_int8_constant,
        reason="an INT8 constant that is read by something other than DequantizeLinear",
        fix="store it as INT32 or FLOAT, or put a DequantizeLinear behind it",
        source="RTX: quantized constant is only allowed before DQ",
        rtx="builder",
    ),
    _no_kernel("integer-matmul", "Gemm MatMul PRelu ReduceL2", _INTS, _EVERY),
    _no_kernel("integer-relu", "Relu", (T.INT32,)),
    _no_kernel("integer-resize", "Resize Upsample", (*_INTS, T.BOOL), _EVERY),
    _no_kernel("integer-scatter", "TensorScatter", (*_INTS, T.INT8, T.BOOL)),
    _no_kernel("integer-quantize", "QuantizeLinear", (T.INT32,), _EVERY),
    _no_kernel("bool-shuffle", "DepthToSpace SpaceToDepth", (T.BOOL,), _EVERY),
    _no_kernel("bool-reduction", "ReduceMax ReduceMin", (T.BOOL,), _EVERY),
    _no_kernel("half-celu", "Celu", (T.FLOAT16, T.BFLOAT16)),
    _no_kernel("bfloat16", "GRU HardSwish LpNormalization LpPool Mish", (T.BFLOAT16,)),
    Row(
        name="int8-clip",
        severity="error",
        operators="Clip",
        when=_loose_int8,
        reason="Clip of INT8 whose lower bound is left out, or whose bounds vary",
        fix="give both bounds as initializers, or Cast to FLOAT before it",
        source="RTX: only floating-point, INT32, or INT64 inputs",
        rtx="parser",
    ),
    Row(
        name="int8-depth",
        severity="error",
        operators="OneHot",
        when=lambda node: node.value(1).type == T.INT8,
        reason="OneHot whose depth is INT8",
        fix="store it as INT64",
        source="RTX",
        rtx="parser",
    ),
    Row(
        name="double",
        severity="warning",
        operators="*",
        when=_double,
        reason="double precision, which the parser narrows to FLOAT without a word",
        fix="compute in FLOAT, where the results can be compared",
        source="operators.md: DOUBLE is cast down to FLOAT; RTX: taken",
    ),
    Row(
        name="int64",
        severity="warning",
        operators=_ARITHMETIC,
        when=_int64,
        reason="arithmetic on INT64 data; GPUs emulate it, and each element moves eight bytes",
        fix="Cast to FLOAT or INT32 first",
        source="RTX: taken; a rule of speed",
    ),
    Row(
        name="rank",
        severity="error",
        operators="*",
        when=_rank,
        reason=f"a tensor of more than {MAX_RANK} dimensions",
        fix="Reshape, so that dimensions that stay neighbours are one",
        source="RTX: number of dimensions is not in the valid range",
        rtx="parser",
    ),
)
