"""Each row of the table on a graph of one node; what the rows call refused, TensorRT for RTX refuses."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from segdeploy.export.lint import TABLE, lint

node = helper.make_node
SCALES = {"scales": np.float32([1, 1, 2, 2])}
INT64_TWICE = [node("Cast", ["x"], ["a"], to=T.INT64), node("Add", ["a", "a"], ["b"]), node("Cast", ["b"], ["y"], to=1)]
UINT8_TWICE = [
    node("Cast", ["x"], ["a"], to=T.UINT8),
    node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
    node("Cast", ["b"], ["y"], to=T.FLOAT),
]
NINE = [node("Reshape", ["x", "shape"], ["a"]), node("Transpose", ["a"], ["y"], perm=[0, 2, 1, *range(3, 9)])]

# Row, nodes, constants, whether TensorRT for RTX refuses it too.
REFUSED = [
    ("antialias", [node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1)], SCALES, True),
    (
        "resize-coordinates",
        [
            node(
                "Resize",
                ["x", "", "scales"],
                ["y"],
                mode="linear",
                coordinate_transformation_mode="half_pixel_symmetric",
            )
        ],
        SCALES,
        True,
    ),
    (
        "resize-aspect",
        [node("Resize", ["x", "", "", "size"], ["y"], mode="linear", keep_aspect_ratio_policy="not_larger")],
        {"size": np.int64([1, 4, 20, 20])},
        True,
    ),
    ("uint8", UINT8_TWICE, {}, True),
    ("int64", INT64_TWICE, {}, False),
    ("double", [node("Cast", ["x"], ["a"], to=T.DOUBLE), node("Cast", ["a"], ["y"], to=T.FLOAT)], {}, False),
    ("opset", [node("Relu", ["x"], ["y"])], {}, False),
    ("domain", [node("Relu", ["x"], ["a"]), node("Mine", ["a"], ["y"], domain="mine")], {}, True),
    ("operator", [node("Det", ["x"], ["y"])], {}, True),
    ("operator", [node("NonZero", ["x"], ["a"]), node("Cast", ["a"], ["y"], to=T.FLOAT)], {}, True),
    ("rank", NINE, {"shape": np.int64([1, 2, 2, 2, 2, 2, 2, 2, 8])}, True),
    (
        "pool-indices",
        [node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])],
        {},
        True,
    ),
    ("pool-dilation", [node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], {}, True),
    (
        "scatter-reduction",
        [node("ScatterND", ["x", "i", "u"], ["y"], reduction="add")],
        {"i": np.int64([[0, 0, 0, 0]]), "u": np.float32([1])},
        True,
    ),
    ("norm-outputs", [node("LayerNormalization", ["x", "g"], ["y", "m"])], {"g": np.ones(16, np.float32)}, True),
]


def model_of(nodes, constants, opset=20):
    image = helper.make_tensor_value_info("x", T.FLOAT, [1, 4, 16, 16])
    extra = ["i"] if nodes[0].op_type == "MaxPool" and len(nodes[0].output) > 1 else []
    outputs = [helper.make_tensor_value_info(name, T.UNDEFINED, None) for name in ("y", *extra)]
    for value, kind in zip(outputs, (T.FLOAT, T.INT64), strict=False):
        value.type.tensor_type.elem_type = kind
    named = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    for i, each in enumerate(nodes):
        each.name = f"n{i}"
    graph = helper.make_graph(nodes, "g", [image], outputs, named)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize(("row", "nodes", "constants", "refused"), REFUSED, ids=[r[0] for r in REFUSED])
def test_row_finds_its_node_and_no_other_row_does(row, nodes, constants, refused):
    model = model_of(nodes, constants, opset=22 if row == "opset" else 20)
    found = lint(model)
    assert found
    assert {line.split(":")[0] for line in found} == {row}
    if refused:
        assert parser_says(model) is not True


def test_every_row_is_shown():
    assert {row.name for row in TABLE} == {row for row, *_ in REFUSED}
    assert all(row.reason and row.source for row in TABLE)


def test_graphs_like_ours_are_clean():
    image = helper.make_tensor_value_info("image", T.UINT8, ["n", "h", "w", 3])
    mask = helper.make_tensor_value_info("mask", T.UINT8, ["n", "h", "w"])
    nodes = [
        node("Shape", ["image"], ["s"]),
        node("Mul", ["s", "two"], ["twice"]),  # arithmetic of shapes is what INT64 is for
        node("Cast", ["image"], ["a"], to=T.FLOAT),
        node("Resize", ["a", "", "", "twice"], ["b"], mode="linear"),
        node("ArgMax", ["b"], ["c"], axis=3, keepdims=0),
        node("Cast", ["c"], ["d"], to=T.FLOAT),
        node("Cast", ["d"], ["mask"], to=T.UINT8),
    ]
    two = onnx.numpy_helper.from_array(np.int64([1, 2, 2, 1]), "two")
    graph = helper.make_graph(nodes, "g", [image], [mask], [two])
    assert lint(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)) == []


def parser_says(model):
    """Whether TensorRT for RTX parses and builds it; None where it is not installed."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    from segdeploy.runtime.trt import RTX, load

    flavour = load(RTX)
    trt, builder = flavour.module, flavour.builder()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, flavour.logger)
    return parser.parse(model.SerializeToString())
