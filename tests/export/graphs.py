"""Small graphs from image to mask whose FP16 form fails where it is not made with care, and models of the zoo."""

import numpy as np
import onnx
import torch
from onnx import TensorProto as T
from onnx import helper

from segdeploy.config import parse_config
from segdeploy.data.natural import natural_images
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.model.segmenter import Deployed, from_config

HEIGHT, WIDTH = 64, 96
node = helper.make_node

CONFIG = """
input_features:
  - name: image
    type: image
    preprocessing: {{height: {0}, width: {1}}}
    encoder: {{{2}}}
output_features:
  - name: mask
    type: image
    preprocessing: {{num_classes: 4}}
    decoder: {{{3}}}
"""


def picture():
    """A ramp over all values of a byte, with a black part: every label is on it, and a pixel of zeros."""
    ramp = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)
    ramp[:4] = 0
    return np.repeat(ramp[None, :, :, None], 3, axis=3)


def model_of(nodes, values, threshold, **constants):
    """image -> a convolution that changes nothing -> x, float (N, 3, H, W); the nodes; whether `values` pass."""
    nodes = [
        node("Cast", ["image"], ["float"], to=T.FLOAT),
        node("Transpose", ["float"], ["plain"], perm=[0, 3, 1, 2]),
        node("Conv", ["plain", "eye"], ["x"], name="node_first"),
        *nodes,
        node("ReduceMax", [values, "channel"], ["best"]),
        node("Sub", ["best", "threshold"], ["above"]),
        node("Neg", ["above"], ["below"]),
        node("Concat", ["below", "above"], ["scores"], axis=1),
        node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
        node("Cast", ["ids"], ["id"], to=T.FLOAT),
        node("Cast", ["id"], ["mask"], to=T.UINT8),
    ]
    for i, each in enumerate(nodes):
        each.name = each.name or f"node_{each.op_type}_{i}"
    constants |= {"eye": _kernel(1.0), "channel": np.array([1]), "threshold": np.float32(threshold)}
    image = helper.make_tensor_value_info("image", T.UINT8, ["batch", HEIGHT, WIDTH, 3])
    mask = helper.make_tensor_value_info("mask", T.UINT8, ["batch", HEIGHT, WIDTH])
    weights = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [mask], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _kernel(gain):
    return (np.eye(3) * gain).astype(np.float32)[:, :, None, None]


def _norm():
    norm = float(np.sqrt((picture().astype(np.float64) ** 2).sum() / 3))
    nodes = [
        node("ReduceL2", ["x", "sides"], ["norm"]),
        node("ReduceMean", ["norm", "channel"], ["mean"]),
        node("Add", ["mean", "epsilon"], ["guarded"]),
        node("Div", ["x", "guarded"], ["response"]),
    ]
    return model_of(nodes, "response", 100.5 / norm, sides=np.array([2, 3]), epsilon=np.float32(1e-6)), {
        "ReduceL2",
        "Add",
        "Div",
    }


def _gain():
    nodes = [node("Conv", ["x", "up"], ["large"]), node("Conv", ["large", "down"], ["again"])]
    return model_of(nodes, "again", 100.5, up=_kernel(500.0), down=_kernel(1 / 500)), {"Conv"}


def _epsilon():
    nodes = [
        node("ReduceL2", ["x", "channel"], ["norm"]),
        node("Add", ["norm", "epsilon"], ["guarded"]),
        node("Div", ["x", "guarded"], ["unit"]),
    ]
    return model_of(nodes, "unit", 0.5, epsilon=np.float32(1e-8)), {"ReduceL2", "Add", "Div"}


def _cube():
    nodes = [node("Pow", ["x", "three"], ["cube"]), node("Mul", ["cube", "small"], ["y"])]
    return model_of(nodes, "y", 100.5**3 * 1e-5, three=np.float32(3), small=np.float32(1e-5)), {"Pow", "Mul"}


def _mean():
    nodes = [node("ReduceMean", ["x", "sides"], ["mean"]), node("Sub", ["x", "mean"], ["off"])]
    mean = float(picture().mean())
    return model_of(nodes, "off", 100.5 - mean, sides=np.array([2, 3])), {"ReduceMean"}


def _tiny_weights():
    nodes = [node("Mul", ["x", "small"], ["y"]), node("Mul", ["y", "large"], ["z"])]
    return model_of(nodes, "z", 100.5, small=np.full((1, 3, 1, 1), 2e-8, np.float32), large=np.float32(5e7)), {"Mul"}


PLANTED = {
    "norm of a large map": _norm,
    "gain that is taken back": _gain,
    "epsilon below FP16": _epsilon,
    "power": _cube,
    "mean of a large map": _mean,
    "weights below FP16": _tiny_weights,
}
"""Each gives a model whose FP32 labels are right, and the operators that must stay in FP32."""


def export(path, encoder, decoder):
    """A model with random weights whose classes all occur, exported to `path`; gives the graph."""
    torch.manual_seed(0)
    config = parse_config(CONFIG.format(HEIGHT, WIDTH, encoder, decoder))
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    deployed = Deployed(model.eval(), spec.preprocessing)
    x = torch.from_numpy(natural_images(3, (HEIGHT, WIDTH))).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        model.head.bias.sub_(model(x * deployed.scale + deployed.shift).mean((0, 2, 3)))
    export_onnx(model, spec, path)
    return onnx.load(path)
