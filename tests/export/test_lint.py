"""Each row of the table on a tiny graph; TensorRT for RTX, parser and builder, does with it what the row says."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from segdeploy.errors import ExportError
from segdeploy.export.lint import TABLE, check_graph, lint
from segdeploy.export.lint_row import concerns
from segdeploy.runtime import trt

node = helper.make_node
ROWS = {row.name: row for row in TABLE}
TWICE = {"s": np.float32([1, 1, 2, 2])}
SCALE, SCALES = np.float32(0.1), np.full(4, 0.1, np.float32)
ZERO, ZEROS = np.int8(0), np.zeros(4, np.int8)
X = {"x": (T.FLOAT, [1, 4, 16, 16])}
STACK, TOO_DEEP = [2, 3, 4], [1, 2, 2, 2, 2, 2, 2, 2, 8]


BODY = helper.make_graph(
    [node("Identity", ["going"], ["on"]), node("Relu", ["before"], ["after"])],
    "body",
    [helper.make_tensor_value_info("i", T.INT64, []), helper.make_tensor_value_info("going", T.BOOL, []),
     helper.make_tensor_value_info("before", T.FLOAT, None)],
    [helper.make_tensor_value_info("on", T.BOOL, []), helper.make_tensor_value_info("after", T.FLOAT, None)],
)  # fmt: skip


GATHERING = onnx.GraphProto()
GATHERING.CopyFrom(BODY)
GATHERING.node.append(node("Relu", ["before"], ["seen"]))
GATHERING.output.append(helper.make_tensor_value_info("seen", T.FLOAT, None))


def case(row, *nodes, ins=X, outs=None, opset=20, also=(), **constants):
    return pytest.param(
        SimpleNamespace(row=row, nodes=nodes, ins=ins, outs=outs or {"y": T.FLOAT}, opset=opset, also=also,
                        constants=constants),
        id=f"{row}-{nodes[0].op_type}",
    )  # fmt: skip


def cast(name, result, to):
    return node("Cast", [name], [result], to=to)


def resize(*inputs, **attributes):
    return node("Resize", ["x", *inputs], ["y"], **{"mode": "linear"} | attributes)


def through(kind, operator, *inputs, **attributes):
    """Cast to a type, the operator, and back to FLOAT."""
    return cast("x", "a", kind), node(operator, ["a", *inputs], ["b"], **attributes), cast("b", "y", T.FLOAT)


def pair(data="x", result="y", zero="z", **attributes):
    last = [zero] if zero else []
    return (
        node("QuantizeLinear", [data, "k", *last], ["q"], **attributes),
        node("DequantizeLinear", ["q", "k", *last], [result], **attributes),
    )


def weights(axis, operator="Conv", bias=()):
    """Quantised input and weights into an operator."""
    return (
        *pair(result="xd"),
        node("DequantizeLinear", ["w", "wk", "wz"], ["wd"], axis=axis),
        node(operator, ["xd", "wd", *bias], ["y"]),
    )


CASES = [
    case("domain", node("Relu", ["x"], ["a"]), node("Mine", ["a"], ["y"], domain="mine")),
    case("operator", node("Det", ["x"], ["y"])),
    case("operator", node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
         i=np.zeros((1, 4, 16, 16), np.int64)),
    case("since-10.0", node("DeformConv", ["x", "w", "o"], ["y"], kernel_shape=[1, 1]), also=["no-plugin"],
         ins=X | {"o": (T.FLOAT, [1, 2, 16, 16])}, w=np.ones((4, 4, 1, 1), np.float32)),
    case("since-10.3", node("HannWindow", ["n"], ["w"]), node("Mul", ["x", "w"], ["y"]), n=np.int64(16)),
    case("since-10.4", node("STFT", ["x", "f", "w"], ["y"]), ins={"x": (T.FLOAT, [1, 64, 1])}, f=np.int64(8),
         w=np.ones(16, np.float32)),
    case("since-10.13", node("Attention", ["x", "x", "x"], ["y"]), opset=23, also=["attention-kernel", "opset-20"]),
    case("since-10.14", node("RMSNormalization", ["x", "w"], ["y"]), opset=23, also=["opset-20"],
         w=np.ones(16, np.float32)),
    case("since-10", node("Swish", ["x"], ["y"]), opset=24, also=["opset-20"]),
    case("since-11.2", node("DFT", ["x", "", "a"], ["y"]), ins={"x": (T.FLOAT, [1, 64, 1])}, a=np.int64(1)),
    case("no-plugin", node("RoiAlign", ["x", "r", "b"], ["y"]), r=np.float32([[0, 0, 8, 8]]), b=np.int64([0])),
    case("no-plugin", node("NonZero", ["x"], ["a"]), cast("a", "y", T.FLOAT), also=["data-dependent"]),
    case("no-kernel", node("NonMaxSuppression", ["x", "scores"], ["a"]), cast("a", "y", T.FLOAT),
         ins={"x": (T.FLOAT, [1, 6, 4]), "scores": (T.FLOAT, [1, 1, 6])}, also=["data-dependent"]),
    case("data-dependent", node("NonZero", ["x"], ["a"]), cast("a", "y", T.FLOAT), also=["no-plugin"]),
    case("volume-sampling", node("GridSample", ["x", "g"], ["y"], mode="linear"),
         ins={"x": (T.FLOAT, [1, 1, 4, 4, 4]), "g": (T.FLOAT, [1, 4, 4, 4, 3])}),
    case("group-norm-opset", node("GroupNormalization", ["x", "w", "w"], ["y"], num_groups=2), opset=21,
         also=["opset-20"], w=np.ones(4, np.float32)),
    case("opset-20", node("Relu", ["x"], ["y"]), opset=21),
    case("opset-24", node("Relu", ["x"], ["y"]), opset=25, also=["opset-20"]),
    case("opset-old", node("Relu", ["x"], ["y"]), opset=8),
    case("type", cast("x", "a", T.INT16), cast("a", "y", T.FLOAT)),
    case("type", node("Cast", ["x"], ["y"], to=T.FLOAT), ins={"x": (T.UINT32, [4])}),
    case("container", node("Relu", ["x"], ["y"]), ins=X | {"l": "sequence"}),
    case("uint8", cast("x", "a", T.UINT8), node("Transpose", ["a"], ["b"]), cast("b", "y", T.FLOAT)),
    case("uint8", cast("x", "a", T.UINT8), cast("a", "y", T.FLOAT)),
    case("uint8", node("Transpose", ["x"], ["a"]), cast("a", "y", T.FLOAT), ins={"x": (T.UINT8, [1, 8, 8, 3])}),
    case("uint8-cast", node("ArgMax", ["x"], ["a"]), cast("a", "y", T.UINT8), outs={"y": T.UINT8}),
    case("uint8-cast", cast("x", "a", T.INT32), cast("a", "y", T.FLOAT), ins={"x": (T.UINT8, [1, 8, 8, 3])}),
    case("low-precision-cast", cast("x", "a", T.FLOAT8E4M3FN), cast("a", "y", T.FLOAT)),
    case("int8-constant", *through(T.INT8, "Add", "c"), c=np.int8([1])),
    case("integer-matmul", *through(T.INT32, "MatMul", "w"), w=np.ones((16, 16), np.int32)),
    case("integer-relu", *through(T.INT32, "Relu")),
    case("integer-resize", *through(T.INT32, "Resize", "", "s"), **TWICE),
    case("integer-scatter", *through(T.INT32, "TensorScatter", "u"), opset=24, u=np.ones((1, 4, 1, 16), np.int32),
         also=["opset-20", "since-10.14"]),
    case("integer-quantize", cast("x", "i", T.INT32), *pair("i"), k=SCALE, z=ZERO),
    case("int8-depth", node("OneHot", ["x", "d", "v"], ["y"]), d=np.int8(4), v=np.float32([0, 1]),
         also=["int8-constant"]),
    case("bool-shuffle", *through(T.BOOL, "DepthToSpace", blocksize=2)),
    case("int8-clip", *through(T.INT8, "Clip", "", "c"), c=np.int8(3)),
    case("bool-reduction", *through(T.BOOL, "ReduceMax")),
    case("half-celu", *through(T.FLOAT16, "Celu")),
    case("bfloat16", *through(T.BFLOAT16, "Mish"), opset=22, also=["opset-20"]),
    case("double", *through(T.DOUBLE, "Relu")),
    case("int64", *through(T.INT64, "Add", "c"), c=np.int64([1])),
    case("rank", node("Reshape", ["x", "d"], ["a"]), node("Transpose", ["a"], ["y"], perm=[0, 2, 1, *range(3, 9)]),
         d=np.int64(TOO_DEEP)),
    case("antialias", resize("", "s", antialias=1), **TWICE),
    case("resize-coordinates", resize("", "s", coordinate_transformation_mode="half_pixel_symmetric"), **TWICE),
    case("resize-aspect", resize("", "", "d", keep_aspect_ratio_policy="not_larger"), d=np.int64([1, 4, 20, 20])),
    case("resize-axes", node("Shape", ["x"], ["d"], start=2), cast("d", "f", T.FLOAT), node("Div", ["f", "e"], ["s"]),
         resize("", "s", axes=[2, 3]), e=np.float32([8, 8]), ins={"x": (T.FLOAT, [1, 4, "h", "w"])}),
    case("resize-scales", resize("", "s"), ins=X | {"s": (T.FLOAT, [4])}),
    case("resize-outer", resize("", "s"), s=np.float32([2, 2, 2, 2])),
    case("resize-cubic", resize("", "s", mode="cubic"), **TWICE),
    case("upsample-scales", node("Upsample", ["x", "s"], ["y"]), ins=X | {"s": (T.FLOAT, [4])}, opset=9),
    case("pool-indices", node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), outs={"y": T.FLOAT, "i": T.INT64}),
    case("pool-dilation", node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])),
    case("pool-norm", node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=3)),
    case("norm-outputs", node("LayerNormalization", ["x", "w"], ["y", "m"]), w=np.ones(16, np.float32)),
    case("norm-training", node("BatchNormalization", ["x", *"wwww"], ["y", "m", "v"], training_mode=1),
         w=np.ones(4, np.float32)),
    case("scatter-reduction", node("ScatterND", ["x", "i", "u"], ["y"], reduction="add"), i=np.int64([[0, 0, 0, 0]]),
         u=np.float32([1])),
    case("scatter-elements-reduction", node("ScatterElements", ["x", "i", "u"], ["y"], reduction="add"),
         i=np.int64([[[[0]]]]), u=np.float32([[[[1]]]])),
    case("deform-pads", node("DeformConv", ["x", "w", "o"], ["y"], kernel_shape=[1, 1], pads=[0, 0, 1, 1]),
         ins=X | {"o": (T.FLOAT, [1, 2, 17, 17])}, w=np.ones((4, 4, 1, 1), np.float32),
         also=["no-plugin", "since-10.0"]),
    case("attention", node("Attention", ["x", "x", "x"], ["y"], softcap=2.0), opset=23,
         also=["attention-kernel", "opset-20", "since-10.13"]),
    case("attention-kernel", node("Attention", ["x", "x", "x"], ["y"]), opset=23, also=["opset-20", "since-10.13"]),
    case("constant-kind", node("Constant", [], ["c"], value_string="a"), node("Relu", ["x"], ["y"]), also=["type"]),
    case("top-k-sorted", node("TopK", ["x", "k"], ["y", "i"], sorted=0), k=np.int64([2])),
    case("random-type", node("RandomUniformLike", ["x"], ["a"], dtype=T.DOUBLE), cast("a", "y", T.FLOAT),
         also=["double"]),
    case("dropout", node("Dropout", ["x", "r", "t"], ["y"]), r=np.float32(0.5), t=np.bool_(True)),
    case("reduce-axes", node("Sub", ["i", "o"], ["a"]), node("ReduceSum", ["x", "a"], ["y"]), i=np.int64([3]),
         o=np.int64([1])),
    case("squeeze-axes", node("Squeeze", ["x", "a"], ["y"]), ins=X | {"a": (T.INT64, [1])}),
    case("window-step", node("STFT", ["x", "f", "w"], ["y"]), w=np.ones(16, np.float32), also=["since-10.4"],
         ins={"x": (T.FLOAT, [1, 64, 1]), "f": (T.INT64, [])}),
    case("scan-axis", node("CumSum", ["x", "a"], ["y"]), ins=X | {"a": (T.INT32, [])}),
    case("one-hot-depth", node("OneHot", ["i", "d", "v"], ["y"]), i=np.int64([0, 1]), v=np.float32([0, 1]),
         ins={"d": (T.FLOAT, [1])}),
    case("top-k-size", node("TopK", ["x", "k"], ["y", "i"]), ins={"x": (T.FLOAT, [1, 5000])}, k=np.int64([4000])),
    case("mod-float", node("Mod", ["x", "c"], ["y"]), c=np.float32([3])),
    case("range-half", node("Range", ["i", "j", "k"], ["a"]), cast("a", "y", T.FLOAT), i=np.float16(0),
         j=np.float16(8), k=np.float16(1)),
    case("loop-scan", node("ReduceMax", ["x"], ["m"], keepdims=0), cast("m", "n", T.INT64),
         node("Loop", ["n", "t", "x"], ["y", "all"], body=GATHERING), t=np.bool_(True)),
    case("range-float", node("Range", ["i", "x", "k"], ["y"]), ins={"x": (T.FLOAT, [])}, i=np.float32(0),
         k=np.float32(1)),
    case("vector-matmul", node("MatMul", ["x", "w"], ["y"]), ins={"x": (T.FLOAT, [3])}, w=np.ones(STACK, np.float32)),
    case("uneven-split", node("Split", ["x"], ["y", "b", "c", "d"], num_outputs=4, axis=0),
         ins={"x": (T.FLOAT, [5])}, outs=dict.fromkeys("ybcd", T.FLOAT)),
    case("tensor-scatter", node("TensorScatter", ["x", "u"], ["y"], mode="circular"), opset=24,
         u=np.ones((1, 4, 1, 16), np.float32), also=["opset-20", "since-10.14"]),
    case("uint8-activations", *pair(), k=SCALE, z=np.uint8(3)),
    case("uint8-as-int8", *pair(), k=SCALE, z=np.uint8(0)),
    case("uint8-as-int8", *pair(zero=""), k=SCALE),
    case("uint8-weights", *weights(0), k=SCALE, z=ZERO, w=np.ones((4, 4, 1, 1), np.uint8), wk=SCALES,
         wz=np.zeros(4, np.uint8)),
    case("zero-point", *pair(), k=SCALE, z=np.int8(3)),
    case("zero-point-varies", *pair(), k=SCALE, ins=X | {"z": (T.INT8, [])}),
    case("quantized-type", *weights(0, bias=["b"])[:3], node("DequantizeLinear", ["i", "wk"], ["b"], axis=0),
         weights(0, bias=["b"])[3], k=SCALE, z=ZERO, w=np.ones((4, 4, 1, 1), np.int8), wk=SCALES, wz=ZEROS,
         i=np.zeros(4, np.int32)),
    case("scale-sign", *pair(), k=np.float32(0), z=ZERO),
    case("scale-varies", *pair(), z=ZERO, ins=X | {"k": (T.FLOAT, [])}),
    case("per-channel-activation", *pair(axis=1), k=SCALES, z=ZEROS),
    case("weight-axis", *weights(1), k=SCALE, z=ZERO, w=np.ones((8, 4, 1, 1), np.int8), wk=SCALES, wz=ZEROS),
]  # fmt: skip


def model_of(given):
    def info(name, kind):
        if kind == "sequence":
            return helper.make_tensor_sequence_value_info(name, T.FLOAT, None)
        return helper.make_tensor_value_info(name, *kind)

    named = [
        value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(value), name)
        for name, value in given.constants.items()
    ]
    for i, each in enumerate(given.nodes):
        each.name = f"n{i}"
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in given.outs.items()]
    graph = helper.make_graph(given.nodes, "g", [info(*i) for i in given.ins.items()], outputs, named)
    opsets = [helper.make_opsetid("", given.opset), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def refused_by(model, build=True):
    """Who of TensorRT for RTX refuses a graph: its parser, its builder, or nobody.

    Its builder is not asked of Attention, which can crash it.
    """
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    rtx = trt.load(trt.RTX)
    builder = rtx.builder()
    network = builder.create_network(1 << int(rtx.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.module.OnnxParser(network, rtx.logger)
    if not parser.parse(model.SerializeToString()):
        return "parser"
    if not build:
        return "not asked"
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(i) for i in range(network.num_inputs)):
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *[[1] * max((1, *tensor.shape))] * 3)
        elif -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *[[16 if side == -1 else side for side in tensor.shape]] * 3)
    config.add_optimization_profile(profile)
    return "" if builder.build_serialized_network(network, config) is not None else "builder"


@pytest.mark.parametrize("given", CASES)
def test_row_finds_its_node_and_no_other_row_does(given):
    found = lint(model_of(given))
    assert {f.row for f in found} == {given.row, *given.also}
    assert all(f.node and f.reason and f.fix for f in found)


@pytest.mark.parametrize("given", CASES)
def test_tensorrt_for_rtx_does_what_the_rows_say(given):
    rows = [ROWS[name] for name in (given.row, *given.also)]
    said = {row.rtx for row in rows if "RTX" in row.versions} - {""}
    expected = "parser" if "parser" in said else "builder" if said else ""
    assert refused_by(model_of(given), build=given.nodes[0].op_type != "Attention") in (expected, "not asked")


HEALTHY = [
    case("volume-sampling", node("GridSample", ["x", "g"], ["y"]), ins=X | {"g": (T.FLOAT, [1, 8, 8, 2])}),
    case("scan-axis", node("CumSum", ["x", "a"], ["y"]), a=np.int64(1)),
    case("top-k", node("TopK", ["x", "k"], ["y", "i"]), k=np.int64([2])),
    case("norm-training", node("BatchNormalization", ["x", *"wwww"], ["y"]), w=np.ones(4, np.float32)),
    case("norm-outputs", node("LayerNormalization", ["x", "w"], ["y"]), w=np.ones(16, np.float32)),
    case("pool-norm", node("LpPool", ["x"], ["y"], kernel_shape=[2, 2])),
    case("scatter", node("ScatterND", ["x", "i", "u"], ["y"]), i=np.int64([[0, 0, 0, 0]]), u=np.float32([1])),
    case("dropout", node("Dropout", ["x"], ["y"])),
    case("squeeze-axes", node("Unsqueeze", ["x", "a"], ["y"]), a=np.int64([0])),
    case("mod-float", node("Mod", ["x", "c"], ["y"], fmod=1), c=np.float32([3])),
    case("split", node("Split", ["x"], ["y", "b", "c"], num_outputs=3, axis=0), ins={"x": (T.FLOAT, [5])},
         outs=dict.fromkeys("ybc", T.FLOAT)),
    case("group-norm-opset", node("InstanceNormalization", ["x", "w", "w"], ["y"]), w=np.ones(4, np.float32)),
    case("bool-shuffle", node("DepthToSpace", ["x"], ["y"], blocksize=2)),
    case("half-celu", node("Celu", ["x"], ["y"])),
    case("int8-clip", *through(T.INT8, "Clip", "c", "c"), c=np.int8(3)),
    case("random-type", node("RandomUniformLike", ["x"], ["y"])),
    case("upsample-scales", node("Upsample", ["x", "s"], ["y"]), opset=9, **TWICE),
    case("loop-scan", node("Loop", ["n", "t", "x"], ["y"], body=BODY), n=np.int64(3), t=np.bool_(True)),
    case("loop-scan", node("ReduceMax", ["x"], ["m"], keepdims=0), cast("m", "n", T.INT64),
         node("Loop", ["n", "t", "x"], ["y"], body=BODY), t=np.bool_(True)),
    case("weight-axis", *weights(0), k=SCALE, z=ZERO, w=np.ones((4, 4, 1, 1), np.int8), wk=SCALES, wz=ZEROS),
    case("weight-axis", *weights(1, "ConvTranspose"), k=SCALE, z=ZERO, w=np.ones((4, 4, 1, 1), np.int8), wk=SCALES,
         wz=ZEROS),
]  # fmt: skip


@pytest.mark.parametrize("given", HEALTHY)
def test_healthy_neighbours_are_left_alone(given):
    model = model_of(given)
    assert lint(model) == []
    assert refused_by(model) == ""


def test_every_row_is_shown():
    assert list(ROWS) == list(dict.fromkeys(row.name for row in TABLE))
    assert len(ROWS) == len(TABLE)
    assert set(ROWS) == {given.values[0].row for given in CASES}
    for row in TABLE:
        assert row.rtx == "" or ("RTX" in row.versions and row.severity == "error")
        assert row.severity == "error" or row.rtx == ""


def test_graphs_like_ours_are_clean():
    """In FP32, in FP16 between casts, and with a quantised convolution."""
    image = helper.make_tensor_value_info("image", T.UINT8, ["n", "h", "w", 3])
    mask = helper.make_tensor_value_info("mask", T.UINT8, ["n", "h", "w"])
    nodes = [
        node("Shape", ["image"], ["d"]),
        node("Mul", ["d", "two"], ["twice"]),  # arithmetic of shapes is what INT64 is for
        cast("image", "a", T.FLOAT),
        node("Resize", ["a", "", "", "twice"], ["b"], mode="linear"),
        node("Transpose", ["b"], ["x"], perm=[0, 3, 1, 2]),
        *pair(result="xd"),
        node("DequantizeLinear", ["w", "wk", "wz"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["c"]),
        cast("c", "half", T.FLOAT16),
        node("Relu", ["half"], ["r"]),
        cast("r", "e", T.FLOAT),
        node("ArgMax", ["e"], ["f"], axis=1, keepdims=0),
        cast("f", "g", T.FLOAT),
        cast("g", "mask", T.UINT8),
    ]
    constants = {"two": np.int64([1, 2, 2, 1]), "k": SCALE, "z": ZERO, "w": np.ones((4, 3, 1, 1), np.int8)}
    named = [
        onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants | {"wk": SCALES, "wz": ZEROS}).items()
    ]
    graph = helper.make_graph(nodes, "g", [image], [mask], named)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    assert lint(model) == []
    assert refused_by(model) == ""


def test_branches_bodies_and_functions_are_read():
    inner = node("Resize", ["x", "", "s"], ["t"], mode="linear", antialias=1, name="inner")
    branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("t", T.FLOAT, None)])
    chosen = SimpleNamespace(nodes=(node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),), opset=20,
                             ins=X | {"c": (T.BOOL, [])}, outs={"y": T.FLOAT}, constants=TWICE)  # fmt: skip
    assert [(f.row, f.node) for f in lint(model_of(chosen))] == [("antialias", "inner")] * 2
    called = model_of(SimpleNamespace(nodes=(node("Up", ["x", "s"], ["y"], domain="mine"),), opset=20, ins=X,
                                      outs={"y": T.FLOAT}, constants=TWICE))  # fmt: skip
    opsets = [helper.make_opsetid("", 20)]
    called.functions.append(helper.make_function("mine", "Up", ["x", "s"], ["t"], [inner], opsets))
    assert [(f.row, f.operator) for f in lint(called)] == [("antialias", "Resize")]


def test_finding_names_layer_versions_and_what_to_change():
    broken = next(c.values[0] for c in CASES if c.values[0].row == "antialias")
    model = model_of(broken)
    model.graph.node[0].metadata_props.add(key="segdeploy.layer", value="decoder.up.0")
    said = str(lint(model)[0])
    assert said.startswith(
        "antialias: n0 (Resize) of decoder.up.0: an antialiased Resize (antialias=1); resize without"
    )
    assert said.endswith("[TensorRT 10, 11, RTX]")


def test_versions():
    assert concerns(("10",), "10.16.1.11")
    assert concerns(("10",), "10")
    assert not concerns(("10",), "11")
    assert not concerns(("11",), "10.16")
    assert not concerns(("10", "11"), "RTX")
    assert concerns(("10.0-10.6",), "10.6.2")
    assert not concerns(("10.0-10.6",), "10.7")
    assert not concerns(("10.0-10.6",), "10")  # which asks for the newest
    assert concerns(("11.0-11.1", "RTX"), "11.1")
    assert concerns(("11.0-11.1", "RTX"), "RTX")


def test_target_keeps_the_rows_that_concern_it():
    deformed = model_of(next(c.values[0] for c in CASES if c.values[0].row == "since-10.0"))
    assert {f.row for f in lint(deformed, "10.0")} == {"since-10.0"}
    assert {f.row for f in lint(deformed, "11.4")} == set()
    assert {f.row for f in lint(deformed, "RTX")} == {"no-plugin"}


def test_export_refuses_errors_with_an_engine_and_warns_without(caplog):
    broken = model_of(next(c.values[0] for c in CASES if c.values[0].row == "antialias"))
    with pytest.raises(ExportError, match=r"^the fp16 graph will not build with TensorRT: antialias: n0 \(Resize\)"):
        check_graph(broken, "fp16", "RTX")
    assert [f.row for f in check_graph(broken, "fp16")] == ["antialias"]
    assert "the fp16 graph will not build with TensorRT: antialias" in caplog.text
    caplog.clear()
    slow = model_of(next(c.values[0] for c in CASES if c.values[0].row == "int64"))
    assert [f.row for f in check_graph(slow, "fp32", "RTX")] == ["int64"]
    assert "builds with TensorRT, and does badly there: int64" in caplog.text
    caplog.clear()
    deformed = model_of(next(c.values[0] for c in CASES if c.values[0].row == "since-10.0"))
    check_graph(deformed, "fp32", "11.4")
    assert not caplog.text


def test_many_nodes_are_one_line():
    again = [node("Relu", ["x"], ["y"])] + [node("Det", ["x"], [f"d{i}"]) for i in range(5)]
    given = SimpleNamespace(nodes=again, ins=X, outs={"y": T.FLOAT}, opset=20, constants={})
    with pytest.raises(ExportError) as caught:
        check_graph(model_of(given), "fp32", "RTX")
    said = str(caught.value)
    assert said.count("operator: n") == 1
    assert said.endswith("; 5 nodes in all, see segdeploy inspect --trt")


def test_uint8_graphs_for_the_cpu_are_sent_to_the_other_file():
    for row in ("uint8-activations", "uint8-as-int8"):
        model = model_of(next(c.values[0] for c in CASES if c.values[0].row == row))
        with pytest.raises(ExportError, match=r"use model\.int8-trt\.onnx"):
            check_graph(model, "int8", "RTX")
