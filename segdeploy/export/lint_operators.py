"""Rows about operators that a version of TensorRT does not have, or has since one of its releases."""

from __future__ import annotations

from segdeploy.export.lint_graph import STANDARD, Node
from segdeploy.export.lint_row import RTX, STANDARD_ONLY, Row

_COMPOSE = "compose it of operators that TensorRT has, or take it out of the graph"

# Of the standard domain up to opset 26.
_NOWHERE = """
AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CausalConvWithState CenterCropPad
Col2Im Compress ConcatFromSequence ConvInteger CumProd Det DynamicQuantizeLinear FlexAttention ImageDecoder
LinearAttention MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional
OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct
SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence
StringConcat StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique
"""

# Operator: the versions that lack it.
_SINCE = {
    "DeformConv": ("10.0",),
    "BlackmanWindow HammingWindow HannWindow": ("10.0-10.3",),
    "STFT": ("10.0-10.4",),
    "Attention": ("10.0-10.13",),
    "RMSNormalization RotaryEmbedding TensorScatter": ("10.0-10.14",),
    "Swish": ("10",),
}


def _foreign(node: Node) -> bool:
    return node.proto.domain not in STANDARD


def _volume(node: Node) -> bool:
    return len(node.value(0).shape or ()) == 5


ROWS = (
    Row(
        name="domain",
        severity="error",
        operators="*",
        when=_foreign,
        reason="an operator of a domain of its own",
        fix="compose it of ONNX operators; TensorRT would need a plugin of this name",
        source="RTX; parser: only ai.onnx, else plugins",
        rtx="parser",
    ),
    Row(
        name="operator",
        severity="error",
        operators=_NOWHERE,
        when=lambda _: True,
        reason="an operator that TensorRT does not have",
        fix=_COMPOSE,
        source="RTX; operators.md",
        rtx="parser",
    ),
    *(
        Row(
            name=f"since-{versions[0].rpartition('-')[2]}",
            severity="error",
            operators=operators,
            when=lambda _: True,
            reason="an operator that came with a later release",
            fix="take a newer TensorRT, or compose it of older operators (export with opset 20)",
            source="changelog",
            versions=versions,
        )
        for operators, versions in _SINCE.items()
    ),
    Row(
        name="since-11.2",
        severity="error",
        operators="DFT",
        when=lambda _: True,
        reason="an operator that came with a later release",
        fix="take TensorRT 11.2 or newer, or multiply with a constant matrix in its place",
        source="RTX; changelog",
        versions=("10", "11.0-11.1", RTX),
        rtx="parser",
    ),
    Row(
        name="no-plugin",
        severity="error",
        operators="DeformConv RoiAlign NonZero",
        when=lambda _: True,
        reason="TensorRT makes it of a plugin that TensorRT for RTX does not ship",
        fix="build with TensorRT, or choose a model without it",
        source="RTX: plugin not found",
        versions=(RTX,),
        rtx="parser",
    ),
    Row(
        name="no-kernel",
        severity="error",
        operators="NonMaxSuppression",
        when=lambda _: True,
        reason="TensorRT for RTX parses it and has no kernel for it",
        fix="build with TensorRT, or select boxes on the host",
        source="RTX: no runners that implement it",
        versions=(RTX,),
        rtx="builder",
    ),
    Row(
        name="data-dependent",
        severity="warning",
        operators="NonZero NonMaxSuppression",
        when=lambda _: True,
        reason="the size of its output depends on the data",
        fix="mask with Where in place of picking; such an engine synchronises and cannot be captured as a CUDA graph",
        source="operators.md; IOutputAllocator in the API",
        versions=STANDARD_ONLY,
    ),
    Row(
        name="volume-sampling",
        severity="error",
        operators="GridSample",
        when=_volume,
        reason="sampling in a volume (five dimensions)",
        fix="take TensorRT 11.2 or newer, or sample slice by slice",
        source="operators.md; changelog",
        versions=("10", "11.0-11.1"),
    ),
    Row(
        name="group-norm-opset",
        severity="error",
        operators="GroupNormalization",
        when=lambda node: node.graph.opset >= 21,
        reason="GroupNormalization as opset 21 defines it",
        fix="export with opset 20",
        source="changelog",
        versions=("10.0-10.8",),
    ),
    Row(
        name="opset-20",
        severity="warning",
        operators="opset",
        when=lambda node: node.graph.opset > 20,
        reason="an opset above 20, which the first releases of TensorRT 10 were not made for",
        fix="export with opset 20",
        source="parser: 9 to 20 in 10.0 and 10.1; newer ones are parsed at one's own risk",
        versions=("10.0-10.1",),
    ),
    Row(
        name="opset-24",
        severity="warning",
        operators="opset",
        when=lambda node: node.graph.opset > 24,
        reason="an opset above 24, which TensorRT was not made for before 11.5",
        fix="export with opset 20",
        source="operators.md: 9 to 24; changelog",
        versions=("10", "11.0-11.4"),
    ),
    Row(
        name="opset-old",
        severity="warning",
        operators="opset",
        when=lambda node: node.graph.opset < 9,
        reason="an opset below 9",
        fix="export with opset 20",
        source="operators.md; RTX: taken",
    ),
)
