"""The FP16 graph: what must stay in FP32 does, the rest does not, types are right, and labels are FP32's."""

import json

import graphs
import numpy as np
import onnx
import pytest
from graphs import PLANTED, model_of, node
from onnx import TensorProto as T
from onnx import helper

from segdeploy.data.natural import natural_images
from segdeploy.errors import ExportError
from segdeploy.export.decisions import decisions_json, decisions_text
from segdeploy.export.engine import build_engine
from segdeploy.export.graph import GraphView, session_of
from segdeploy.export.half import run_half
from segdeploy.export.precision import to_fp16
from segdeploy.export.precision_types import Slots, retype

SIZE = (graphs.HEIGHT, graphs.WIDTH)


def types(model):
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)} | {
        c.name: c.data_type for c in graph.initializer
    }


def fp32(decisions):
    return {d.operator for d in decisions if d.precision == "fp32"}


def casts(model):
    return [n for n in model.graph.node if n.op_type == "Cast"]


def check(model, source):
    """What every FP16 graph keeps."""
    onnx.checker.check_model(model, full_check=True)
    types(model)
    assert not model.graph.value_info
    assert model.graph.input == source.graph.input
    assert model.graph.output == source.graph.output
    assert model.metadata_props == source.metadata_props
    assert {n.name for n in source.graph.node} <= {n.name for n in model.graph.node}
    names = [n.name for n in model.graph.node]
    assert len(names) == len(set(names))
    written = {o: n for n in model.graph.node for o in n.output}
    read = [i for n in model.graph.node for i in n.input]
    assert set(read) <= {*written, "image", "", *(c.name for c in model.graph.initializer)}
    assert {c.name for c in model.graph.initializer} <= set(read)
    known = types(model)
    for cast in casts(model):
        assert known[cast.input[0]] != known[cast.output[0]]
        before = written.get(cast.input[0])
        floats = (T.FLOAT, T.FLOAT16)
        back_and_forth = before is not None and before.op_type == "Cast" and known[before.input[0]] in floats
        assert not (back_and_forth and known[cast.output[0]] in floats)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_overflow_is_kept_in_fp32(name):
    model, must = PLANTED[name]()
    image = graphs.picture()
    expected = session_of(model).run(None, {"image": image})[0]
    assert len(np.unique(expected)) == 2
    # All of it in FP16: wrong on a GPU.
    naive = retype(Slots(GraphView(model)), ())
    onnx.checker.check_model(naive, full_check=True)
    assert (run_half(naive, image)[0] != expected).mean() > 0.04
    ours, decisions = to_fp16(model, [image])
    check(ours, model)
    assert must <= fp32(decisions)
    assert next(d.precision for d in decisions if d.node == "node_first") == "fp16"
    np.testing.assert_array_equal(run_half(ours, image)[0], expected)
    np.testing.assert_array_equal(session_of(ours).run(None, {"image": image})[0], expected)


def test_harmless_graph_is_all_fp16_without_a_cast_more():
    nodes = [
        node("Mul", ["x", "scale"], ["y"]),
        node("ReduceMean", ["y", "sides"], ["mean"]),
        node("Sub", ["y", "mean"], ["off"]),
    ]
    model = model_of(nodes, "off", 0.01, scale=np.float32(1 / 255), sides=np.array([2, 3]))
    ours, decisions = to_fp16(model, [graphs.picture()])
    assert {d.precision for d in decisions} == {"fp16"}
    assert len(casts(ours)) == len(casts(model))
    known = types(ours)
    assert known["x"] == known["scale"] == known["scores"] == T.FLOAT16
    assert known["id"] == T.FLOAT  # class ids on their way to uint8
    assert known["sides"] == known["ids"] == T.INT64


def test_range_in_the_table_is_what_was_seen_over_all_images():
    model = model_of([node("Mul", ["x", "two"], ["y"])], "y", 1, two=np.float32(2))
    dark, light = np.full((1, *SIZE, 3), 10, np.uint8), np.full((1, *SIZE, 3), 200, np.uint8)
    for images in ([dark, light], [light, dark]):
        _, decisions = to_fp16(model, images)
        assert next(d.range for d in decisions if d.operator == "Mul") == 400


def test_patterns_stay_in_fp32():
    model = model_of([node("Mul", ["x", "two"], ["y"], name="decoder_gain")], "y", 1, two=np.float32(2))
    ours, decisions = to_fp16(model, [graphs.picture()], keep_fp32=("other*", "decoder_*"))
    found = next(d for d in decisions if d.node == "decoder_gain")
    assert found.precision == "fp32"
    assert "decoder_*" in found.reason
    assert types(ours)["y"] == T.FLOAT
    assert types(ours)["two"] == T.FLOAT


def test_cheap_node_between_two_in_fp32_joins_them_and_casts_are_shared():
    nodes = [
        node("Softmax", ["x"], ["a"], axis=1),
        node("Add", ["a", "one"], ["b"]),
        node("Softmax", ["b"], ["c"], axis=1),
        node("LogSoftmax", ["c"], ["e"], axis=2),
        node("Conv", ["c", "kernel"], ["d"]),
        node("Conv", ["c", "kernel"], ["f"]),
        node("Sum", ["d", "f", "e", "one"], ["y"]),
    ]
    kernel = np.eye(3, dtype=np.float32)[:, :, None, None]
    model = model_of(nodes, "y", 1.3, one=np.float32(1), kernel=kernel)
    ours, decisions = to_fp16(model, [graphs.picture()])
    check(ours, model)
    reason = {d.node: d.reason for d in decisions}
    assert reason["node_Add_4"] == "fewer casts than in FP16"
    assert types(ours)["a"] == T.FLOAT
    assert [n.input[0] for n in casts(ours)].count("c") == 1  # two convolutions read it
    # The weight that FP32 and FP16 nodes both read is there twice.
    assert types(ours)["one"] == T.FLOAT
    assert types(ours)["one.fp16"] == T.FLOAT16
    expected = session_of(model).run(None, {"image": graphs.picture()})[0]
    assert (run_half(ours, graphs.picture())[0] == expected).mean() > 0.995


def test_inputs_with_types_of_their_own_keep_them():
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "two", "four"], ["size"]),
        node("Cast", ["size"], ["sizes"], to=T.FLOAT),
        node("Resize", ["x", "roi", "scales"], ["small"], mode="nearest"),
        node("Shape", ["small"], ["small_shape"]),
        node("ConstantOfShape", ["small_shape"], ["zeros"],
             value=onnx.numpy_helper.from_array(np.array([0.5], np.float32))),
        node("Clip", ["small", "low", "high"], ["cut"]),
        node("Greater", ["cut", "zeros"], ["mask_of"]),
        node("Where", ["mask_of", "cut", "zeros"], ["some"]),
        node("Resize", ["some", "", "", "shape"], ["big"], mode="nearest"),
        node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
        node("Div", ["big", "largest"], ["y"]),
    ]  # fmt: skip
    model = model_of(
        nodes, "y", 1, two=np.array([2]), four=np.array([4]), scales=np.float32([1, 1, 0.5, 0.5]),
        low=np.float32(0), high=np.float32(240), roi=np.zeros(8, np.float32),
    )  # fmt: skip
    ours, decisions = to_fp16(model, [graphs.picture()])
    check(ours, model)
    known = types(ours)
    assert not fp32(decisions)
    assert known["scales"] == known["roi"] == T.FLOAT
    assert known["low"] == known["zeros"] == known["sizes"] == T.FLOAT16
    assert known["shape"] == T.INT64
    expected = session_of(model).run(None, {"image": graphs.picture()})[0]
    np.testing.assert_array_equal(run_half(ours, graphs.picture())[0], expected)


def test_places_and_counts_stay_in_fp32():
    nodes = [
        node("Range", ["zero", "width", "one"], ["columns"]),
        node("Sin", ["columns"], ["wave"]),
        node("Cast", ["many"], ["count"], to=T.FLOAT),
        node("Mul", ["wave", "count"], ["table"]),
        node("Add", ["x", "table"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "one": np.float32(1), "width": np.float32(graphs.WIDTH)}
    model = model_of(nodes, "y", 1, many=np.int64(3001), **constants)
    ours, decisions = to_fp16(model, [graphs.picture()])
    check(ours, model)
    reason = {d.operator: d.reason for d in decisions if d.precision == "fp32"}
    assert {"Range", "Sin", "Cast"} <= set(reason)
    assert "counts places" in reason["Sin"]
    assert "3e+03" in reason["Cast"]


def test_small_divisors_that_no_epsilon_announces_are_seen():
    nodes = [node("Mul", ["x", "small"], ["y"]), node("Max", ["y", "floor"], ["z"]), node("Div", ["one", "z"], ["w"])]
    constants = {"small": np.float32(1e-3), "floor": np.float32([1e-5, 2e-5, 4e-5]).reshape(1, 3, 1, 1)}
    model = model_of(nodes, "w", 10, one=np.float32(0.1), **constants)
    _, decisions = to_fp16(model, [graphs.picture()])
    assert "Div of values down to 1e-05" in next(d.reason for d in decisions if d.operator == "Div")


def test_large_products_count_where_their_sum_is_small():
    """300 products of 255 against as many of -255: the result is 0, and partial sums pass FP16's end."""
    weight = np.where(np.arange(600) % 2, 1, -1).astype(np.float32).reshape(1, 600, 1, 1)
    nodes = [
        node("Concat", ["x"] * 200, ["many"], axis=1),
        node("Conv", ["many", "weight"], ["sum"]),
        node("Add", ["sum", "x"], ["y"]),
    ]
    _, decisions = to_fp16(model_of(nodes, "y", 100.5, weight=weight), [graphs.picture()])
    assert "add up to 1.53e+05" in next(d.reason for d in decisions if d.operator == "Conv" and d.node != "node_first")


def test_returned_scores_end_in_fp32():
    model = model_of([node("Sigmoid", ["x"], ["y"])], "y", 0.9)
    model.graph.output.append(helper.make_tensor_value_info("y", T.FLOAT, ["batch", 3, *SIZE]))
    model.graph.output.append(helper.make_tensor_value_info("above", T.FLOAT, ["batch", 1, *SIZE]))
    ours, decisions = to_fp16(model, [graphs.picture()], keep_fp32=())
    check(ours, model)
    assert next(d.reason for d in decisions if d.operator == "Sigmoid") == "scores are returned"
    plain = session_of(model).run(None, {"image": graphs.picture()})
    for x, y in zip(plain, run_half(ours, graphs.picture()), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x.astype(float), y, atol=2e-3)


def test_what_it_cannot_take_is_refused_in_one_line():
    model = model_of([node("Relu", ["x"], ["y"])], "y", 1)
    with pytest.raises(ExportError, match="there are none"):
        to_fp16(model, [])
    with pytest.raises(ExportError, match="on image 1"):
        to_fp16(model, [np.zeros((1, 3, 3, 3), np.uint8)])
    then = helper.make_graph(
        [node("Relu", ["x"], ["inner"])], "then", [], [helper.make_empty_tensor_value_info("inner")]
    )
    branch = node("If", ["yes"], ["y"], name="choice", then_branch=then, else_branch=then)
    with pytest.raises(ExportError, match=r"choice \(If\): holds a graph of its own"):
        to_fp16(model_of([branch], "y", 1, yes=np.array(True)), [graphs.picture()])


def test_table_says_first_what_stays_in_fp32():
    model, _ = PLANTED["epsilon below FP16"]()
    _, decisions = to_fp16(model, [graphs.picture()])
    content = json.loads(json.dumps(decisions_json(decisions), allow_nan=False))
    lines = decisions_text(content).splitlines()
    kept = [d for d in decisions if d.precision == "fp32"]
    assert lines[0] == f"FP32: {len(kept)} of {len(decisions)} nodes"
    assert [line.split()[0] for line in lines[3 : 3 + len(kept)]] == [d.node for d in kept]
    assert "the constant 1e-08 is below FP16's normal numbers" in "".join(lines)
    assert lines[-1].startswith(f"fp32: {len(kept)} nodes (")


# The nets of random weights have flat scores, and more pixels near a border between classes than trained ones.
@pytest.mark.parametrize(
    ("encoder", "decoder", "kept"),
    [
        (
            "type: timm, model_name: convnextv2_atto, use_pretrained: false",
            "type: unet",
            {"LayerNormalization", "ReduceL2", "ReduceMean", "Div", "Add"},
        ),
        (
            "type: mit, depths: [1, 1, 1, 1], hidden_sizes: [16, 32, 40, 64]",
            "type: segformer, hidden_size: 32",
            {"LayerNormalization", "Softmax"},
        ),
        (
            "type: timm, model_name: mobilenetv3_small_050, use_pretrained: false",
            "type: fpn, num_channels: 16, merge_channels: 16",
            set(),
        ),
    ],
)
def test_labels_of_the_zoo_are_those_of_fp32(tmp_path, encoder, decoder, kept):
    model = graphs.export(tmp_path / "model.onnx", encoder, decoder)
    ours, decisions = to_fp16(model, [x[None] for x in natural_images(3, SIZE)])
    check(ours, model)
    assert kept <= fp32(decisions)
    assert kept or not fp32(decisions)
    assert not {"Conv", "MatMul", "Gemm", "ConvTranspose"} & fp32(decisions)
    assert len(ours.SerializeToString()) < 0.62 * len(model.SerializeToString())
    image = natural_images(3, SIZE, seed=1)
    expected = session_of(model).run(None, {"image": image})[0]
    assert len(np.unique(expected)) == 4
    assert (run_half(ours, image)[0] == expected).mean() >= 0.995
    assert (session_of(ours).run(None, {"image": image})[0] == expected).mean() >= 0.995
    if "Softmax" in kept:
        pytest.importorskip("tensorrt_rtx_bindings")
        from segdeploy.model.spec import parse_spec

        onnx.save(ours, tmp_path / "model.fp16.onnx")
        spec = parse_spec(next(p.value for p in ours.metadata_props if p.key == "segdeploy.spec"), "model")
        build_engine(tmp_path / "model.fp16.onnx", spec, tmp_path)
