"""A small graph and its model for tests of engines: one convolution, argmax, uint8 to uint8."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segdeploy.classes import ClassMap
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

real = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT for RTX is not installed"
)
HEIGHT, WIDTH = 16, 24
PART = Part(name="made-up", config={}, distribution="tests", version="1")
SPEC = ModelSpec(
    encoder=PART,
    decoder=PART,
    classes=ClassMap(names=("a", "b", "c"), colors=((0, 0, 0), (255, 0, 0), (0, 255, 0))),
    preprocessing=Preprocessing(height=HEIGHT, width=WIDTH, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1)),
)


def write_graph(path: Path, batch="batch", height=HEIGHT, width=WIDTH, sign=1.0, refused=False) -> Path:
    """image (batch, H, W, 3) -> mask (batch, H, W): the class whose filter answers most."""
    weights = sign * np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        node("Transpose", ["x"], ["chw"], perm=[0, 3, 1, 2]),
        node("Conv", ["chw", "w"], ["logits"], "node_conv2d_5", pads=[1, 1, 1, 1]),
        node("ArgMax", ["logits"], ["i"], axis=1, keepdims=0),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Cast", ["f"], ["mask"], to=TensorProto.UINT8),
    ]
    if refused:  # antialias is what no TensorRT takes
        nodes.insert(3, node("Resize", ["logits", "", "s"], ["again"], "node_resize_7", mode="linear", antialias=1))
        nodes[4] = node("ArgMax", ["again"], ["i"], axis=1, keepdims=0)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, height, width, 3])],
        [helper.make_tensor_value_info("mask", TensorProto.UINT8, [batch, height, width])],
        [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.ones(4, np.float32), "s")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, path)
    return path
