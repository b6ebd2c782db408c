"""The probe against NumPy on graphs whose values are known."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from segdeploy.data.natural import natural_images
from segdeploy.export.fp16_range import probe

node = helper.make_node


def graph_of(nodes, **constants):
    image = helper.make_tensor_value_info("image", T.UINT8, ["n", "h", "w", 3])
    named = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    nodes = [node("Cast", ["image"], ["x"], to=T.FLOAT), *nodes]
    for i, each in enumerate(nodes):
        each.name = f"node_{each.op_type}_{i}"
    end = helper.make_tensor_value_info(nodes[-1].output[0], T.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [image], [end], named)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)


def test_output_beyond_the_range_is_named_with_its_value(image):
    graph = graph_of([node("Mul", ["x", "by"], ["y"]), node("Relu", ["y"], ["z"])], by=np.float32(200))
    found = probe(graph, image)
    assert [(e.node, e.operator, e.what) for e in found.beyond] == [
        ("node_Mul_1", "Mul", "output"),
        ("node_Relu_2", "Relu", "output"),
    ]
    assert found.beyond[0].value == found.largest == 200.0 * image.max()
    assert probe(graph_of([node("Mul", ["x", "by"], ["y"])], by=np.float32(20)), image).beyond == ()


def test_weights_count_and_infinity_does_not(image):
    graph = graph_of([node("Min", ["x", "by"], ["y"])], by=np.float32(-7e4))
    assert [e.what for e in probe(graph, image).beyond] == ["weight by", "output"]
    graph = graph_of([node("Min", ["x", "by"], ["y"])], by=np.float32(-np.inf))
    assert probe(graph, image).beyond == ()


# 80 pixels of one value are added up: 80 * 124 and 80 * 11 ** 2 stay below 1e4, those of 126 and 12 do not.
@pytest.mark.parametrize(
    ("operator", "pixel", "expected"),
    [
        ("ReduceMean", 124, []),
        ("ReduceMean", 126, [80 * 126]),
        ("ReduceL2", 11, []),
        ("ReduceL2", 12, [80 * 12**2]),
    ],
)
def test_sums_are_told_apart(operator, pixel, expected):
    graph = graph_of([node(operator, ["x", "axes"], ["y"])], axes=np.int64([1, 2]))
    found = probe(graph, np.full((2, 8, 10, 3), pixel, np.uint8))
    assert [s.value for s in found.sums] == expected
    assert found.beyond == ()


def test_patterns_and_normalisations_are_left_out(image):
    nodes = [node("Mul", ["x", "by"], ["y"]), node("Softmax", ["y"], ["z"])]
    assert len(probe(graph_of(nodes, by=np.float32(200)), image).beyond) == 1
    assert probe(graph_of(nodes, by=np.float32(200)), image, ["*Mul*"]).beyond == ()


def test_pictures_are_smooth_and_use_the_whole_range():
    pictures = natural_images(3, (64, 48)).astype(float)
    assert pictures.shape == (3, 64, 48, 3)
    assert pictures[0].min() == 0
    assert pictures[0].max() == 255
    assert (pictures[2] == 255).all()
    # Neighbours are alike, as in photographs and unlike in noise (where the two are equal).
    steps = np.abs(np.diff(pictures[0], axis=0)).mean()
    assert steps < 0.75 * np.abs(pictures[0] - np.random.default_rng(0).permutation(pictures[0])).mean()
