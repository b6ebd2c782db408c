"""What TensorRT for RTX's real parser says, and how a parser of TensorRT 10 or 11 is asked."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper
from tensorrt_double import VERSIONS, TensorRT

from segdeploy.errors import ModelError
from segdeploy.export.parser_verdict import ask_parser
from segdeploy.runtime import trt

node = helper.make_node
ANTIALIASED = node("Resize", ["x", "", "s"], ["a"], mode="linear", antialias=1, name="up")


def write(path, nodes, functions=()):
    x = helper.make_tensor_value_info("x", T.FLOAT, [1, 4, 16, 16])
    y = helper.make_tensor_value_info("y", T.FLOAT, [1, 4, 16, 16])
    scales = onnx.numpy_helper.from_array(np.float32([1, 1, 2, 2]), "s")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], [scales])
    model = helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    return trt.load(trt.RTX)


def test_a_graph_that_it_takes(rtx, tiny_bundle):
    verdict = ask_parser(tiny_bundle / "model.onnx", rtx)
    assert verdict.accepted
    assert verdict.refusals == ()
    assert (verdict.flavour, verdict.version, verdict.nodes_refused) == ("tensorrt_rtx", rtx.version, 0)


def test_every_operator_at_fault_is_named_with_reason_and_layer(rtx, tmp_path):
    nodes = [ANTIALIASED, node("Relu", ["a"], ["b"], name="relu"), node("Det", ["b"], ["c"], name="det")]
    path = write(tmp_path / "m.onnx", [*nodes, node("Expand", ["c", "d"], ["y"], name="e")])
    verdict = ask_parser(path, rtx, {"up": "decoder.up.0"})
    assert not verdict.accepted
    up, det = verdict.refusals[:2]
    assert (up.node, up.operator, up.layer, up.code) == ("up", "Resize", "decoder.up.0", "UNSUPPORTED_NODE_ATTR")
    assert str(up) == "up (Resize) of decoder.up.0: Antialiasing is not supported currently."
    assert str(det) == "det (Det): TensorRT does not have this operator"
    assert len({r.node for r in verdict.refusals}) == len(verdict.refusals)
    assert verdict.nodes_refused >= 2


def test_a_node_inside_a_function_says_which(rtx, tmp_path):
    inner = [node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1, name="inner")]
    up = helper.make_function("mine", "Up", ["x", "s"], ["y"], inner, [helper.make_opsetid("", 20)])
    path = write(tmp_path / "m.onnx", [node("Up", ["x", "s"], ["y"], domain="mine", name="call")], [up])
    (refusal,) = ask_parser(path, rtx).refusals
    assert (refusal.node, refusal.functions) == ("inner", ("call (Up)",))
    assert str(refusal).startswith("inner (Resize) in call (Up): ")


def test_files_that_are_no_graph(rtx, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"m\.onnx: expected an ONNX file"):
        ask_parser(tmp_path / "m.onnx", rtx)
    with pytest.raises(ModelError, match=r"no\.onnx: cannot be read: No such file"):
        ask_parser(tmp_path / "no.onnx", rtx)


@pytest.mark.parametrize("version", VERSIONS)
def test_both_major_versions_are_asked_alike(version, tmp_path, monkeypatch):
    """Of TensorRT 10 and 11 the double knows every name and its arguments; its verdicts are set by the test."""
    double = TensorRT(version)
    monkeypatch.setitem(sys.modules, "tensorrt", double.module)
    flavour = trt.load(trt.TENSORRT)
    path = write(tmp_path / "m.onnx", [node("Relu", ["x"], ["y"], name="relu")])
    assert ask_parser(path, flavour).accepted
    double.faults.parse = ("up", "Resize", '(antialias == 0) && "Antialiasing is not supported currently."')
    verdict = ask_parser(path, flavour, {"up": "decoder"})
    assert [str(r) for r in verdict.refusals] == ["up (Resize) of decoder: Antialiasing is not supported currently."]
    assert verdict.version.startswith(version.partition(".")[0])
