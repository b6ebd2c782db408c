"""Whole factors as constants: the same labels to the bit, and a graph that runtimes can fuse."""

import functools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from segdeploy.config import parse_config
from segdeploy.errors import ExportError
from segdeploy.export import onnx_graph
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.model.segmenter import Deployed, from_config

CONFIG = """
input_features:
  - name: image
    type: image
    preprocessing: {{height: {0}, width: {1}}}
    encoder: {{type: timm, model_name: mobilenetv3_small_050, use_pretrained: false}}
output_features:
  - name: mask
    type: image
    preprocessing: {{num_classes: 4}}
    decoder: {{type: fpn, num_channels: 16, merge_channels: 16, upsample_mode: {2}}}
"""


def exported(path, height, width, mode):
    torch.manual_seed(0)
    config = parse_config(CONFIG.format(height, width, mode))
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    export_onnx(model.eval(), spec, path)
    return onnx.load(path).graph


def labels(path, height, width):
    image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_whole_factors_are_constants_and_change_nothing(tmp_path, monkeypatch, mode):
    graph = exported(tmp_path / "fixed.onnx", 64, 96, mode)
    constants = {c.name for c in graph.initializer}
    resizes = [n for n in graph.node if n.op_type == "Resize"]
    assert resizes
    assert all(len(n.input) == 3 and n.input[2] in constants for n in resizes)
    assert "Shape" not in {n.op_type for n in graph.node}
    monkeypatch.setattr(onnx_graph, "fix_scales", lambda model: None)
    plain = exported(tmp_path / "plain.onnx", 64, 96, mode)
    assert any(len(n.input) == 4 for n in plain.node if n.op_type == "Resize")
    assert (labels(tmp_path / "fixed.onnx", 64, 96) == labels(tmp_path / "plain.onnx", 64, 96)).all()


def test_other_factors_keep_their_sizes(tmp_path, monkeypatch):
    graph = exported(tmp_path / "fixed.onnx", 72, 104, "nearest")
    kinds = {len(n.input) for n in graph.node if n.op_type == "Resize"}
    assert kinds == {3, 4}  # 72 / 8 = 9 from 18 is whole, 72 / 16 = 4.5 rounds up to 5 and is not
    monkeypatch.setattr(onnx_graph, "fix_scales", lambda model: None)
    exported(tmp_path / "plain.onnx", 72, 104, "nearest")
    assert (labels(tmp_path / "fixed.onnx", 72, 104) == labels(tmp_path / "plain.onnx", 72, 104)).all()


def test_every_constant_is_read(tmp_path):
    graph = exported(tmp_path / "model.onnx", 64, 96, "nearest")
    read = {name for n in graph.node for name in n.input}
    assert [c.name for c in graph.initializer if c.name not in read] == []


def test_free_height_and_width_are_right_at_other_sizes(tmp_path):
    torch.manual_seed(0)
    text = CONFIG.format(64, 96, "nearest").replace(
        "timm, model_name: mobilenetv3_small_050, use_pretrained: false", "unet, base_channels: 4"
    )
    config = parse_config(text)
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    with torch.no_grad():  # random weights give one class everywhere; centred logits give regions
        logits = model.eval()(torch.randn(1, 3, 64, 96))
        model.head.bias.sub_(logits.mean((0, 2, 3)))
    about = export_onnx(model, spec, tmp_path / "m.onnx", dynamic_size=True)
    assert about["input"]["shape"] == ["batch", "height", "width", 3]
    assert about["output"]["shape"] == ["batch", "height", "width"]
    reference = Deployed(model, spec.preprocessing).eval()
    for height, width in [(64, 96), (33, 71), (128, 64)]:
        image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(image)).numpy()
        assert len(np.unique(expected)) > 1
        assert (labels(tmp_path / "m.onnx", height, width) == expected).mean() > 0.999


def test_a_coarse_map_of_one_cell_stays_free(tmp_path):
    """At 32 x 32 the level of stride 32 is a single cell, which torch would take for a constant."""
    torch.manual_seed(0)
    text = CONFIG.format(32, 32, "nearest").replace(
        "fpn, num_channels: 16, merge_channels: 16, upsample_mode: nearest", "segformer, hidden_size: 16"
    )
    config = parse_config(text)
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    with torch.no_grad():
        logits = model.eval()(torch.randn(2, 3, 64, 96))
        model.head.bias.sub_(logits.mean((0, 2, 3)))
    export_onnx(model, spec, tmp_path / "m.onnx", dynamic_size=True)
    reference = Deployed(model, spec.preprocessing).eval()
    for height, width in [(32, 32), (64, 96), (33, 71)]:
        image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(image)).numpy()
        assert (labels(tmp_path / "m.onnx", height, width) == expected).mean() > 0.999


def test_unknown_sides_are_not_whole_factors():
    """A Resize of one cell to a size that only the run knows keeps that size."""
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    cell, grown = value("cell", shape=[1, 2, 1, 1]), value("grown", shape=[1, 2, "h", "w"])
    size = onnx.helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [4])
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["cell"]),
        onnx.helper.make_node("Resize", ["cell", "", "", "size"], ["grown"], mode="linear"),
        onnx.helper.make_node("Relu", ["grown"], ["y"]),
    ]
    ends = [value("x", shape=[1, 2, 1, 1]), size], [value("y", shape=[1, 2, "h", "w"])]
    graph = onnx.helper.make_graph(nodes, "g", *ends, value_info=[cell, grown])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", onnx_graph.OPSET)])
    onnx_graph.fix_scales(model)
    assert list(model.graph.node[1].input) == ["cell", "", "", "size"]


def test_what_torch_cannot_trace_is_named_in_one_line(tmp_path):
    config = parse_config(CONFIG.format(64, 96, "nearest"))
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    plain = model.forward
    model.forward = lambda image: plain(image) if image.mean().item() > 0 else plain(-image)
    with pytest.raises(ExportError, match=r"timm \+ fpn: torch cannot export it: Could not guard on data") as caught:
        export_onnx(model.eval(), spec, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_no_file_can_hold(tmp_path):
    config = parse_config(CONFIG.format(64, 96, "nearest"))
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    model.decoder.large = torch.nn.Conv2d(8000, 8000, 3, device="meta")
    with pytest.raises(ExportError, match=r"^timm \+ fpn: has 2.3 GB of weights, and an ONNX file holds 2.1 GB; train"):
        export_onnx(model.eval(), spec, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_norm_over_rows_and_columns_is_taken_in_two_steps():
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    nodes = [
        onnx.helper.make_node("ReduceL2", ["x", "sides"], ["sides_norm"], name="a", keepdims=1),
        onnx.helper.make_node("ReduceL2", ["x", "channel"], ["channel_norm"], name="b", keepdims=1),
        onnx.helper.make_node("ReduceL2", ["x", "sides"], ["flat_norm"], name="c", keepdims=0),
    ]
    constants = [onnx.numpy_helper.from_array(np.array(v), k) for k, v in {"sides": [1, 2], "channel": [3]}.items()]
    shapes = {"sides_norm": ["n", 1, 1, 3], "channel_norm": ["n", 5, 7, 1], "flat_norm": ["n", 3]}
    ends = [value(name, shape=shape) for name, shape in shapes.items()]
    graph = onnx.helper.make_graph(nodes, "g", [value("x", shape=["n", 5, 7, 3])], ends, constants)
    opset = [onnx.helper.make_opsetid("", onnx_graph.OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx_graph.split_norms(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.name for n in model.graph.node] == ["a.columns", "a", "b", "c"]
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    found = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for norm, axes, kept in zip(found, [(1, 2), 3, (1, 2)], [True, True, False], strict=True):
        np.testing.assert_allclose(norm, np.sqrt((x.astype(np.float64) ** 2).sum(axes, keepdims=kept)), rtol=1e-6)
