"""Tables of a graph, on graphs small enough to write them by hand."""

import graphs
import numpy as np
import onnx
import pytest
from graphs import model_of, node

from segdeploy.errors import ExportError, ModelError
from segdeploy.export.graph import GraphView, Names, infer, load_graph, session_of, without_weights


def test_constant_nodes_become_initializers_and_give_the_same():
    nodes = [
        node("Constant", [], ["k"], value_float=2.0),
        node("Constant", [], ["axes"], value_ints=[2, 3]),
        node("Mul", ["x", "k"], ["y"]),
        node("ReduceMax", ["y", "axes"], ["z"]),
    ]
    model = model_of([*nodes, node("Sub", ["y", "z"], ["off"])], "off", -9)
    view = GraphView(model)
    assert view.constants["k"] == 2
    assert view.constants["axes"].dtype == np.int64
    assert "Constant" not in {n.op_type for n in view.nodes}
    assert "Constant" in {n.op_type for n in model.graph.node}  # the model that was given stays
    image = {"image": graphs.picture()}
    np.testing.assert_array_equal(session_of(view.model).run(None, image)[0], session_of(model).run(None, image)[0])


def test_types_and_shapes_need_no_weights():
    weight, sides = np.ones((400, 3, 1, 1), np.float32), np.array([0, 20, 20, -1, graphs.WIDTH])
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Reshape", ["c", "sides"], ["r"])]
    model = model_of([*nodes, node("ReduceSum", ["r", "one"], ["y"], keepdims=0)], "y", -9, w=weight, sides=sides,
                     one=np.array([1]))  # fmt: skip
    bare = without_weights(model)
    assert bare.ByteSize() < model.ByteSize() - 4 * weight.size < 1500
    assert (bare.graph.input, bare.graph.output, bare.graph.node) == (
        model.graph.input, model.graph.output, model.graph.node
    )  # fmt: skip
    whole = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    assert infer(model).value_info == whole.value_info
    assert len(whole.value_info)


def test_writers_readers_and_layers():
    weight = np.eye(3, dtype=np.float32)[:, :, None, None]
    nodes = [
        node("Conv", ["x", "a.weight"], ["first"]),
        node("Conv", ["first", "b.weight"], ["second"]),
        node("Add", ["first", "second"], ["y"]),
    ]
    view = GraphView(model_of(nodes, "y", 1, **{"a.weight": weight, "b.weight": weight}))
    at = {n.output[0]: i for i, n in enumerate(view.nodes)}
    assert view.producer["first"] == at["first"]
    assert view.readers["first"] == [at["second"], at["y"]]
    assert [view.layer_of(at[name]) for name in ("plain", "first", "second", "y")] == ["", "a", "b", "b"]
    assert view.ranks["y"] == 4


def test_names_are_new():
    names = Names(model_of([node("Relu", ["x"], ["y"])], "y", 1))
    assert [names.new("y"), names.new("y"), names.new("free")] == ["y.1", "y.2", "free"]


def test_a_function_or_wrong_types_are_refused(tmp_path):
    model = model_of([node("Relu", ["x"], ["y"])], "y", 1)
    opset = [onnx.helper.make_opsetid("", 20)]
    model.functions.append(
        onnx.helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], opset)
    )
    with pytest.raises(ExportError, match="function Twice"):
        GraphView(model)
    with pytest.raises(ExportError, match="do not fit"):
        GraphView(model_of([node("Add", ["x", "half"], ["y"])], "y", 1, half=np.float16(1)))
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="not an ONNX file"):
        load_graph(tmp_path / "no.onnx")
