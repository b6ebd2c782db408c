"""What TensorRT's parsers refuse, or take and do badly, as one table over an ONNX graph. Needs no TensorRT.

"RTX" below is what TensorRT for RTX 1.7.1 said to a graph of that one node, run on a CPU; tests/export asks it
again. "parser" is https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md, "types" is
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/accuracy-considerations.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_UINT8, _INT64, _DOUBLE = onnx.TensorProto.UINT8, onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn")
_ARITHMETIC = {"Abs", "Add", "Clip", "CumSum", "Div", "Einsum", "Gemm", "MatMul", "Max", "Mean", "Min", "Mod", "Mul"}
_ARITHMETIC |= {"Neg", "Pow", "Sub", "Sum"}
_MAX_RANK = 8

# Of the standard domain, up to opset 26. DeformConv is left out: TensorRT has it, RTX has not.
_NO_SUCH_OPERATOR = """
AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
ConcatFromSequence ConvInteger CumProd DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool
MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss NonZero Optional OptionalGetElement
OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty
SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique
"""


class Graph:
    """A model with what its rows look up: types, ranks, attributes, and what shapes alone decide."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.nodes = list(model.graph.node)
        self.ends = {v.name for v in (*model.graph.input, *model.graph.output)}
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        self.types = {v.name: v.type.tensor_type.elem_type for v in values}
        self.types |= {c.name: c.data_type for c in model.graph.initializer}
        self.ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values}
        self.from_shapes = {c.name for c in model.graph.initializer} | {""}
        for node in self.nodes:  # sorted, as ONNX demands
            if node.op_type in ("Shape", "Size", "Constant") or self.from_shapes.issuperset(node.input):
                self.from_shapes.update(node.output)

    def of(self, *operators: str) -> Iterator[tuple[onnx.NodeProto, dict[str, Any]]]:
        """Each node of these operators with its attributes."""
        for node in self.nodes:
            if node.op_type in operators:
                yield node, {a.name: _value(a) for a in node.attribute}


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One row: its name, why it is refused, how that is known, and a function that gives the nodes it is about."""

    name: str
    reason: str
    source: str
    find: Callable[[Graph], Iterable[onnx.NodeProto]]


def _uint8(graph: Graph) -> Iterator[onnx.NodeProto]:
    for node in (n for n in graph.nodes if n.op_type not in ("Shape", "Size")):  # they read no data
        touched = [name for name in (*node.input, *node.output) if graph.types.get(name) == _UINT8]
        others = [name for name in (*node.input, *node.output) if name not in touched]
        good = node.op_type == "Cast" and all(graph.types.get(name) in _FLOATS for name in others)
        if touched and not (good and graph.ends.issuperset(touched)):
            yield node


def _int64(graph: Graph) -> Iterator[onnx.NodeProto]:
    for node in graph.nodes:
        computed = set(node.output) - graph.from_shapes
        arithmetic = node.op_type in _ARITHMETIC or node.op_type.startswith("Reduce")
        if arithmetic and any(graph.types.get(name) == _INT64 for name in computed):
            yield node


def _double(graph: Graph) -> Iterator[onnx.NodeProto]:
    return (n for n in graph.nodes if any(graph.types.get(name) == _DOUBLE for name in n.output))


def _rank(graph: Graph) -> Iterator[onnx.NodeProto]:
    return (n for n in graph.nodes if any(graph.ranks.get(name, 0) > _MAX_RANK for name in n.output))


def _foreign(graph: Graph) -> Iterator[onnx.NodeProto]:
    return (n for n in graph.nodes if n.domain not in ("", "ai.onnx"))


def _opset(graph: Graph) -> list[onnx.NodeProto]:
    found = [o for o in graph.model.opset_import if o.domain in ("", "ai.onnx") and not 9 <= o.version <= 20]
    return [onnx.NodeProto(name=f"opset {o.version}", op_type="opset") for o in found]


TABLE = (
    Refused(
        name="antialias",
        reason="an antialiased Resize; resize without it, or once before the network",
        source="RTX: antialiasing is not supported",
        find=lambda g: (n for n, a in g.of("Resize") if a.get("antialias")),
    ),
    Refused(
        name="resize-coordinates",
        reason=f"a Resize whose coordinates are none of {', '.join(_COORDINATES)}",
        source="RTX: refused",
        find=lambda g: (
            n for n, a in g.of("Resize") if a.get("coordinate_transformation_mode", "half_pixel") not in _COORDINATES
        ),
    ),
    Refused(
        name="resize-aspect",
        reason="a Resize that keeps the aspect ratio; give it the size that is wanted",
        source="RTX: only stretch is supported",
        find=lambda g: (n for n, a in g.of("Resize") if a.get("keep_aspect_ratio_policy", "stretch") != "stretch"),
    ),
    Refused(
        name="uint8",
        reason="UINT8 anywhere but at the graph's input and output, each through a Cast from or to float",
        source="RTX: no UINT8 for intermediate tensors; types: converted from and to FLOAT and HALF only",
        find=_uint8,
    ),
    Refused(
        name="int64",
        reason="arithmetic on INT64 data; GPUs emulate it, and each element moves eight bytes. Cast to float or int32",
        source="RTX: taken; a rule of speed",
        find=_int64,
    ),
    Refused(
        name="double",
        reason="double precision, which the parser narrows to float without a word; compute in float",
        source="parser: DOUBLE is cast down to FLOAT",
        find=_double,
    ),
    Refused(
        name="opset",
        reason="opset: TensorRT 10.0 to 11 all read 9 to 20",
        source="parser: supported opsets",
        find=_opset,
    ),
    Refused(
        name="domain",
        reason="an operator of a domain of its own, which needs a TensorRT plugin; compose it of ONNX operators",
        source="parser: only ai.onnx",
        find=_foreign,
    ),
    Refused(
        name="operator",
        reason="an operator that TensorRT has not, or whose output's size depends on the data",
        source="RTX: supports_operator is false; NonZero: refused",
        find=lambda g: (n for n, _ in g.of(*_NO_SUCH_OPERATOR.split())),
    ),
    Refused(
        name="rank",
        reason=f"a tensor of more than {_MAX_RANK} dimensions",
        source="RTX: number of dimensions is not in the valid range",
        find=_rank,
    ),
    Refused(
        name="pool-indices",
        reason="max pooling that also gives indices (return_indices); join with skips in place of unpooling",
        source="RTX: one output only",
        find=lambda g: (n for n, _ in g.of("MaxPool") if len(n.output) > 1),
    ),
    Refused(
        name="pool-dilation",
        reason="dilated pooling",
        source="RTX: no dilations other than 1",
        find=lambda g: (n for n, a in g.of("MaxPool", "AveragePool") if set(a.get("dilations", [1])) != {1}),
    ),
    Refused(
        name="scatter-reduction",
        reason="ScatterND or ScatterElements that adds up or multiplies (index_add, scatter_reduce)",
        source="RTX: unsupported reduction",
        find=lambda g: (n for n, a in g.of("ScatterND", "ScatterElements") if a.get("reduction", "none") != "none"),
    ),
    Refused(
        name="norm-outputs",
        reason="LayerNormalization whose mean or deviation is read too",
        source="RTX: one output only",
        find=lambda g: (n for n, _ in g.of("LayerNormalization") if len([o for o in n.output if o]) > 1),
    ),
)


def lint(model: onnx.ModelProto) -> list[str]:
    """One line for each row that a node breaks: the row, the node, the reason."""
    graph = Graph(model)
    return [f"{row.name}: {node.name} ({node.op_type}): {row.reason}" for row in TABLE for node in row.find(graph)]
