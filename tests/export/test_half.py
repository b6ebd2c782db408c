"""The evaluator against NumPy's float16, operator by operator; onnxruntime shows why it is needed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from segdeploy.export.graph import session_of
from segdeploy.export.half import open_half, rounded

node = helper.make_node


def model_of(nodes, **constants):
    """A graph in FP16 from a FLOAT input of rank 4 to the last node's output."""
    nodes = [node("Cast", ["in"], ["x"], to=T.FLOAT16), *nodes]
    for i, each in enumerate(nodes):
        each.name = f"n{i}"
    ends = (
        [helper.make_tensor_value_info("in", T.FLOAT, [2, 4, 8, 8])],
        [helper.make_tensor_value_info(nodes[-1].output[0], T.FLOAT16, [2, 4, None, None])],
    )
    weights = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, x):
    return open_half(model).run(None, {"in": x})[0]


@pytest.fixture
def x():
    values = np.random.default_rng(0).normal(0, 1, (2, 4, 8, 8)).astype(np.float32)
    # Beyond the range, at its ends, subnormal, below all, and ties of rounding.
    values.ravel()[:10] = [1e5, 65504, 65519, 65520, -7e4, 6e-8, 3e-5, 2e-8, 2049, -2051]
    return values


@np.errstate(over="ignore", invalid="ignore")
def test_every_tensor_is_rounded_as_numpy_rounds(x):
    by = np.float16(3.1)
    model = model_of([node("Mul", ["x", "by"], ["y"]), node("Add", ["y", "x"], ["z"])], by=by)
    half = x.astype(np.float16)
    expected = half * by + half
    assert np.isinf(expected).any()
    np.testing.assert_array_equal(run(model, x), expected.astype(np.float32))


def test_no_operator_of_the_graph_computes_in_fp16(x):
    graph = rounded(model_of([node("Exp", ["x"], ["y"]), node("Relu", ["y"], ["z"])]))
    onnx.checker.check_model(graph, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(graph).graph.value_info}
    halves = [n.op_type for n in graph.graph.node if any(types.get(t) == T.FLOAT16 for t in n.output)]
    assert set(halves) == {"Cast"}


SIDES = np.array([2, 3])


def f16(x):
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


# Operator, its attributes, and the sum that must fit: 64 cells of 40, squared or not.
@pytest.mark.parametrize(
    ("operator", "value", "fits"),
    [
        ("ReduceSum", 1000, True),
        ("ReduceSum", 1100, False),
        ("ReduceMean", 1000, True),
        ("ReduceMean", 1100, False),
        ("ReduceL1", -1100, False),
        ("ReduceL2", 31, True),
        ("ReduceL2", 33, False),
        ("ReduceSumSquare", 33, False),
    ],
)
def test_a_sum_must_fit(operator, value, fits):
    model = model_of([node(operator, ["x", "sides"], ["y"])], sides=SIDES)
    x = np.full((2, 4, 8, 8), value, np.float32)
    found = run(model, x)
    whole = {"ReduceSum": 64.0 * value, "ReduceMean": float(value), "ReduceL2": 8.0 * value}.get(operator)
    if fits:
        np.testing.assert_allclose(found, whole, rtol=1e-3)
    else:
        assert np.isinf(found).all()
    # What is tested for: onnxruntime computes it in FP32, and only a result beyond the range shows.
    plain = session_of(model).run(None, {"in": x})[0]
    assert np.isinf(plain).all() == (operator in ("ReduceSum", "ReduceL1", "ReduceSumSquare") and not fits)


def test_global_average_pool_adds_up_too():
    model = model_of([node("GlobalAveragePool", ["x"], ["y"])])
    assert np.isinf(run(model, np.full((2, 4, 8, 8), 1100, np.float32))).all()
    np.testing.assert_allclose(run(model, np.full((2, 4, 8, 8), 900, np.float32)), 900)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_softmax_and_normalisations_are_those_of_fp32_but_for_rounding(scale):
    x = (np.random.default_rng(1).normal(0, scale, (2, 4, 8, 8))).astype(np.float32)
    weights = {"scale": np.linspace(0.5, 2, 8).astype(np.float16), "shift": np.linspace(-1, 1, 8).astype(np.float16)}
    for each, constants in (
        (node("Softmax", ["x"], ["y"], axis=1), {}),
        (node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=-1, epsilon=1e-3), weights),
        (
            node("InstanceNormalization", ["x", "a", "b"], ["y"]),
            {k: v[:4] for k, v in zip("ab", weights.values(), strict=True)},
        ),
    ):
        model = model_of([each], **constants)
        expected = session_of(model).run(None, {"in": x})[0].astype(np.float32)
        found = run(model, x)
        assert (found != expected).any()
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.004)


def test_a_variance_of_large_values_overflows_in_layer_norm():
    x = np.tile(np.linspace(-400, 400, 8, dtype=np.float32), (2, 4, 8, 1))
    ones, zeros = np.ones(8, np.float16), np.zeros(8, np.float16)
    model = model_of([node("LayerNormalization", ["x", "one", "zero"], ["y"])], one=ones, zero=zeros)
    assert np.abs(session_of(model).run(None, {"in": x})[0]).min() > 0.1
    assert (run(model, x) == 0).all()
