"""The graph for CPUs gives what the plain one gives, as onnxruntime computes both, and only touches what it knows."""

import logging
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from segdeploy.bundle import Bundle, artifact
from segdeploy.config import parse_config
from segdeploy.config.export import Export
from segdeploy.export import cpu
from segdeploy.export.cpu import for_cpu, proven_for_cpu
from segdeploy.export.cpu_doubled import WORTH
from segdeploy.export.graphs import ONNX_FILE, write_graphs
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.model.segmenter import from_config

NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
rng = np.random.default_rng(0)


def model_of(nodes, inputs, constants):
    """`inputs`: shapes by name; the last node's output is `y`."""
    values = [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["batch", *shape]) for k, shape in inputs.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", values, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def node(kind, inputs, output, **form):
    return helper.make_node(kind, inputs, [output], name=f"node_{output}", **form)


def outputs(model, inputs):
    images = {k: np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32) for k, shape in inputs.items()}
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), settings).run(None, images)[0]


def kernel(*shape):
    return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))


def doubled(order="xs", bias=True, channels=WORTH, resize=NEAREST, factor=2.0, size=3, **form):
    """A U-Net's step: `x`, doubled, and skips `s` and `t` in this order, then a convolution."""
    inputs = {"x": (channels, 5, 7), "s": (3, 10, 14), "t": (4, 10, 14)}
    inputs = {k: v for k, v in inputs.items() if k in order}
    width = sum(shape[0] for shape in inputs.values())
    joined = ["u" if k == "x" else k for k in order]
    nodes = [node("Resize", ["x", "", "scales"], "u", **resize)]
    nodes += [node("Concat", joined, "c", axis=1)] if len(order) > 1 else []
    form = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4} | form
    made = ["c" if len(order) > 1 else "u", "w", *(["b"] if bias else [])]
    nodes.append(node("Conv", made, "y", **form))
    constants = {"scales": [1, 1, factor, factor], "w": kernel(6, width // form.get("group", 1), size, size)}
    return model_of(nodes, inputs, constants | ({"b": kernel(6, 1)[:, 0]} if bias else {})), inputs


def joined(resize=LINEAR, factors=(4.0, 2.0, 1.0), bias=True, projected=True, size=1, **form):
    """SegFormer's head: maps of several sizes, projected, enlarged to one, and mixed by one convolution."""
    nodes, constants, inputs, parts = [], {}, {}, []
    for i, factor in enumerate(factors):
        inputs[f"x{i}"] = (4 + i, int(8 / factor), int(12 / factor))
        part = f"x{i}"
        if projected:
            nodes.append(node("Conv", [part, f"w{i}", f"b{i}"], f"p{i}", kernel_shape=[1, 1]))
            constants |= {f"w{i}": kernel(16, 4 + i, 1, 1), f"b{i}": kernel(16, 1)[:, 0]}
            part = f"p{i}"
        if factor != 1:
            nodes.append(node("Resize", [part, "", f"scales{i}"], f"u{i}", **resize))
            constants[f"scales{i}"] = [1, 1, factor, factor]
            part = f"u{i}"
        parts.append(part)
    width = sum(16 if projected else 4 + i for i in range(len(factors)))
    constants |= {"w": kernel(6, width // form.get("group", 1), size, size)} | (
        {"b": kernel(6, 1)[:, 0]} if bias else {}
    )
    nodes.append(node("Concat", parts, "c", axis=1))
    mixed = ["c", "w", *(["b"] if bias else [])]
    nodes.append(node("Conv", mixed, "y", **({"kernel_shape": [size] * 2, "pads": [size // 2] * 4} | form)))
    return model_of(nodes, inputs, constants), inputs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", ["x", "xs", "sx", "sxt"])
def test_a_doubled_map_is_convolved_at_its_own_size(order, bias):
    model, inputs = doubled(order, bias)
    made = for_cpu(model)
    assert not [n for n in made.graph.node if n.op_type == "Resize"]
    large = [n for n in made.graph.node if n.op_type == "Conv" and n.attribute[0].ints[:] == [3, 3]]
    assert len(large) == (order != "x")
    np.testing.assert_allclose(outputs(made, inputs), outputs(model, inputs), atol=2e-6)


@pytest.mark.parametrize("resize", [LINEAR, NEAREST, LINEAR | {"coordinate_transformation_mode": "align_corners"}])
@pytest.mark.parametrize(("projected", "bias"), [(True, True), (True, False), (False, True)])
def test_parts_are_mixed_at_their_own_size(resize, projected, bias):
    model, inputs = joined(resize, projected=projected, bias=bias)
    made = for_cpu(model)
    assert not [n for n in made.graph.node if n.op_type == "Concat"]
    assert sum(n.op_type == "Conv" for n in made.graph.node) == 3  # the projections went into them
    np.testing.assert_allclose(outputs(made, inputs), outputs(model, inputs), atol=2e-6)


@pytest.mark.parametrize(
    "model",
    [
        doubled(channels=WORTH - 1),
        doubled(resize=LINEAR),
        doubled(resize=NEAREST | {"nearest_mode": "ceil"}),
        doubled(order="x", factor=3.0),
        doubled(size=5),
        doubled(strides=[2, 2]),
        doubled(pads=[0] * 4),
        doubled(order="xt", group=2),
        joined(resize={"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}),
        joined(factors=(1.0, 1.0)),
        joined(size=3),
        joined(group=2),
    ],
    ids=lambda made: "",
)
def test_what_it_does_not_know_stays(model):
    assert for_cpu(model[0]) is None


@pytest.mark.parametrize("name", ["u", "c"])
def test_what_another_node_reads_stays(name):
    model, _ = doubled()
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    assert for_cpu(model) is None


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ("timm, model_name: mobilenetv3_small_050, use_pretrained: false", "unet, channels: [32, 32]"),
        ("mit, depths: [1, 1, 1, 1], hidden_sizes: [16, 32, 40, 64]", "segformer, hidden_size: 32"),
    ],
)
def test_a_cpu_takes_it_and_tensorrt_the_plain_graph(tmp_path, encoder, decoder):
    text = f"""
input_features: [{{name: image, type: image, preprocessing: {{height: 64, width: 96}}, encoder: {{type: {encoder}}}}}]
output_features: [{{name: mask, type: image, preprocessing: {{num_classes: 4}}, decoder: {{type: {decoder}}}}}]
"""
    config = parse_config(text)
    spec, segmenter = from_config(config, config.mask.preprocessing.class_map())
    with torch.no_grad():  # random weights give one class everywhere; centred logits give regions
        segmenter.head.bias.sub_(segmenter.eval()(torch.randn(1, 3, 64, 96)).mean((0, 2, 3)))
    about = export_onnx(segmenter, spec, tmp_path / ONNX_FILE)
    made = write_graphs(tmp_path, spec, about, Export(), (), lambda what, done, total: None)
    bundle = Bundle(tmp_path, spec, (artifact(tmp_path, ONNX_FILE, "onnx", "fp32"), *made))
    files = [bundle.find("onnx", "fp32", target).file for target in ("cpu", "tensorrt")]
    assert files == ["model.cpu.onnx", "model.onnx"]
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    light, plain = (ort.InferenceSession(tmp_path / name).run(None, {"image": image})[0] for name in files)
    assert len(np.unique(plain)) > 1
    assert (light == plain).mean() > 0.9999


@pytest.fixture(scope="module")
def segmenting():
    """image -> mask, with a step of a U-Net between."""
    nodes = [
        node("Cast", ["image"], "x", to=TensorProto.FLOAT),
        node("Transpose", ["x"], "t", perm=[0, 3, 1, 2]),
        node("AveragePool", ["t"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "v"], "q", kernel_shape=[1, 1]),
        node("Resize", ["q", "", "scales"], "u", **NEAREST),
        node("Conv", ["u", "w"], "y", kernel_shape=[3, 3], pads=[1] * 4),
        node("ArgMax", ["y"], "i", axis=1, keepdims=0),
        node("Cast", ["i"], "mask", to=TensorProto.UINT8),
    ]
    weights = {"v": kernel(WORTH, 3, 1, 1), "w": kernel(6, WORTH, 3, 3), "scales": [1, 1, 2, 2]}
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 16, 24, 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", 16, 24])
    constants = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [image], [mask], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def stumbles(patch):
    raise KeyError("axis")


def makes_no_graph(patch):
    patch.graph.node.remove(patch.producer("u"))
    return 1


def makes_other_shapes(patch):
    patch.producer("t").attribute[0].ints[:] = [0, 1, 2, 3]
    return 1


def makes_other_labels(patch):
    patch.constants["w"].CopyFrom(numpy_helper.from_array(-patch.value("w"), "w"))
    return 1


def makes_what_onnxruntime_refuses(patch):
    patch.producer("i").domain = "some.one"
    patch.model.opset_import.append(helper.make_opsetid("some.one", 1))
    return 1


def test_a_graph_for_cpus_is_proven(segmenting, caplog):
    made = proven_for_cpu(segmenting, (16, 24), 0.999)
    assert made == for_cpu(segmenting) is not None
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (stumbles, "KeyError: 'axis'"),
        (makes_no_graph, "ValidationError: "),
        (makes_other_shapes, "InferenceError: "),
        (makes_what_onnxruntime_refuses, "ExportError: onnxruntime cannot load the graph"),
        (makes_other_labels, "% of the pixels agree, fewer than 99.900%"),
    ],
)
def test_what_goes_wrong_with_the_graph_for_cpus_costs_that_alone(segmenting, monkeypatch, caplog, rule, reason):
    monkeypatch.setattr(cpu, "RULES", (rule,))
    with caplog.at_level(logging.WARNING):
        assert proven_for_cpu(segmenting, (16, 24), 0.999) is None
    (said,) = caplog.messages
    assert said.startswith("no graph for CPUs (model.cpu.onnx) is written")
    assert reason in said


def test_without_onnxruntime_there_is_no_graph_for_cpus(segmenting, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert proven_for_cpu(segmenting, (16, 24), 0.999) is None
    assert "onnxruntime not installed" in caplog.text
