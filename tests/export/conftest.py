"""A small network of the parts that mobile networks have, as `export_onnx` writes it; made by hand, so in no time."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper


def make_toy(outlier=1.0, dtype=np.float32, size=(32, 48), seed=0):
    """image uint8 (batch, H, W, 3) -> mask uint8 (batch, H, W), five classes, random weights.

    `outlier` makes one channel of what `lateral` gives that much larger, and the weights that read it that much
    smaller: the same network, but one whose tensor a common step cannot serve.
    """
    random = np.random.default_rng(seed)
    constants, nodes = {}, []

    def constant(name, value):
        constants[name] = np.asarray(value)
        return name

    def node(operator, name, inputs, output=None, **attributes):
        output = output or f"{name}_out"
        nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def conv(name, x, came, gives, kernel=1, stride=1, group=1):
        fan_in = came // group * kernel**2
        weight = random.normal(size=(gives, came // group, kernel, kernel)) * np.sqrt(2 / fan_in)
        if name == "lateral":
            weight[0] *= outlier
        if name == "smooth":
            weight[:, 0] /= outlier
        inputs = [x, constant(f"{name}.weight", weight.astype(dtype))]
        inputs.append(constant(f"{name}.bias", (random.normal(size=gives) * 0.1).astype(dtype)))
        pads = [kernel // 2] * 4
        kernel_shape, strides = [kernel] * 2, [stride] * 2
        return node("Conv", name, inputs, kernel_shape=kernel_shape, pads=pads, strides=strides, group=group)

    x = node("Cast", "cast", ["image"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    x = node("Transpose", "permute", [x], perm=[0, 3, 1, 2])
    std, mean = np.array([0.229, 0.224, 0.225]), np.array([0.485, 0.456, 0.406])
    x = node("Mul", "scale", [x, constant("by", (1 / (255 * std)).reshape(1, 3, 1, 1).astype(dtype))])
    x = node("Add", "shift", [x, constant("plus", (-mean / std).reshape(1, 3, 1, 1).astype(dtype))])
    x = stem = node("HardSwish", "swish", [conv("stem", x, 3, 8, kernel=3, stride=2)])
    x = node("Relu", "relu", [conv("depthwise", x, 8, 8, kernel=3, group=8)])
    pooled = node("ReduceMean", "mean", [x, constant("axes", np.int64([2, 3]))], keepdims=1)
    squeezed = node("Relu", "se_relu", [conv("se_reduce", pooled, 8, 4)])
    gate = node("HardSigmoid", "se_gate", [conv("se_expand", squeezed, 4, 8)], alpha=1 / 6, beta=0.5)
    x = node("Mul", "se_mul", [x, gate])
    fine = node("Add", "residual", [conv("project", x, 8, 8), stem])
    x = node("Relu", "deep_relu", [conv("deep", fine, 8, 8, kernel=3, stride=2)])
    scales = constant("twice", np.float32([1, 1, 2, 2]))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    up = node("Resize", "nearest", [conv("top", x, 8, 8), "", scales], **nearest)
    x = node("Add", "merge", [conv("lateral", fine, 8, 8), up])
    x = node("Relu", "smooth_relu", [conv("smooth", x, 8, 8)])
    up = node("Resize", "linear", ["deep_relu_out", "", scales], **linear)
    x = node("Add", "merge_linear", [x, up])
    x = conv("head", x, 8, 5)
    x = node("Resize", "last", [x, "", scales], **linear)
    x = node("ArgMax", "argmax", [x], axis=1, keepdims=0)
    x = node("Cast", "to_float", [x], to=T.FLOAT)
    node("Cast", "to_uint8", [x], "mask", to=T.UINT8)
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("image", T.UINT8, ["batch", *size, 3])],
        [helper.make_tensor_value_info("mask", T.UINT8, ["batch", *size])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key="segdeploy.spec", value="{}")
    model.producer_name = "segdeploy"
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def toy():
    """A function that makes the network."""
    return make_toy


@pytest.fixture(scope="session")
def pictures():
    """Eight images for it, (1, 32, 48, 3) uint8."""
    from segdeploy.data.natural import natural_images

    return [image[None] for image in natural_images(8, (32, 48))]
