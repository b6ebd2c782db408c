"""The lint and the real parser of TensorRT for RTX on ONNX's own test graphs for every operator: who builds what.

Each graph is asked about twice: as it is, and with all inputs but the first as constants.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from segdeploy.data.natural import natural_images
from segdeploy.export.lint import TABLE, lint
from segdeploy.runtime import trt

PARSER_REFUSES = {row.name for row in TABLE if row.rtx == "parser"}
# Where the two differ, and why that may stay.
KNOWN = {
    "test_equal_uint8": "RTX compares two UINT8 inputs, and refuses the same with a constant; operators.md has neither",
    "test_attention_4d_padded_kv_bf16": "a mask that cannot be broadcast; Attention is an error at any rate",
    "test_dequantizelinear_int4": "an odd number of four-bit values",
    "test_dequantizelinear_float4e2m1": "an odd number of four-bit values",
}
KINDS = (T.FLOAT16, T.BFLOAT16, T.DOUBLE, T.INT32, T.INT64, T.BOOL, T.INT8, T.UINT8)


def with_constants(given):
    """The graph with the test's own data as initializers, all but the first; None where there is no more than one."""
    if len(given.model.graph.input) < 2 or not given.data_sets:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(given.model)
    for value, data in list(zip(model.graph.input, given.data_sets[0][0], strict=False))[1:]:
        if np.isscalar(data) or (isinstance(data, np.ndarray) and data.dtype != object):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(data), value.name))
            model.graph.input.remove(value)
    return model


def in_type(model, kind):
    """The graph with another type in place of FLOAT; None where ONNX does not allow it."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value in (*changed.graph.input, *changed.graph.output):
        if value.type.tensor_type.elem_type == T.FLOAT:
            value.type.tensor_type.elem_type = kind
    for tensor in changed.graph.initializer:
        if tensor.data_type == T.FLOAT:
            data = numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))
    try:
        onnx.checker.check_model(changed, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return changed


@pytest.fixture(scope="module")
def cases():
    return {given.name: given for given in collect_testcases(None)}


@pytest.fixture(scope="module")
def refuses():
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    rtx = trt.load(trt.RTX)
    builder = rtx.builder()

    def parser_refuses(model):
        network = builder.create_network(1 << int(rtx.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        return not rtx.module.OnnxParser(network, rtx.logger).parse(model.SerializeToString())

    return parser_refuses


def lint_refuses(model):
    return any(f.row in PARSER_REFUSES for f in lint(model, "RTX"))


def test_every_operator(cases, refuses):
    differ, asked = [], 0
    for name, given in cases.items():
        for model in filter(None, (given.model, with_constants(given))):
            asked += 1
            if lint_refuses(model) != refuses(model) and name not in KNOWN:
                differ.append(name)
    assert asked > 3000
    assert differ == []


def test_every_operator_in_every_type(cases, refuses):
    seen, differ, asked = set(), [], 0
    for given in cases.values():
        operator = given.model.graph.node[0].op_type
        model = with_constants(given) or given.model
        inputs = (v.type.tensor_type.elem_type for v in model.graph.input)
        if operator in seen or len(given.model.graph.node) > 1 or T.FLOAT not in inputs or refuses(model):
            continue
        seen.add(operator)
        for changed in filter(None, (in_type(model, kind) for kind in KINDS)):
            asked += 1
            if lint_refuses(changed) != refuses(changed):
                differ.append((operator, changed.graph.input[0].type.tensor_type.elem_type))
    assert len(seen) > 90
    assert asked > 400
    assert differ == []


# Each a function of (FP32 graph, images) to the graph that TensorRT reads.
GRAPHS = {"fp32": lambda model, images: model}


@pytest.mark.parametrize("precision", GRAPHS)
def test_exported_graphs(precision, tiny_bundle, refuses):
    model = onnx.load(tiny_bundle / "model.onnx")
    images = list(natural_images(2, (64, 96))[:, None])
    graph = GRAPHS[precision](model, images)
    assert lint(graph) == []
    assert not refuses(graph)
