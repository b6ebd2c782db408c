"""Where graphs part: the node that was changed is the first to be named, and where none was, none is."""

import json
import shutil

import graphs
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from graphs import PLANTED, model_of, node

from segdeploy import bundle
from segdeploy.cli.main import cli, main
from segdeploy.data.natural import natural_images
from segdeploy.debug import diff, diff_graphs, diff_text, input_of, split_what
from segdeploy.errors import ModelError
from segdeploy.export.graph import GraphView
from segdeploy.export.precision import to_fp16
from segdeploy.export.precision_types import Slots, retype


def chain(gain=2.0):
    nodes = [node("Mul", ["x", "gain"], ["y"]), node("Sigmoid", ["y"], ["z"]), node("Add", ["z", "x"], ["sum"])]
    return model_of(nodes, "sum", 100.5, gain=np.float32(gain))


def test_a_graph_equals_itself():
    found = diff_graphs(chain(), chain(), graphs.picture(), 0)
    assert found.equal
    assert found.agreement == 1
    assert found.compared == len(chain().graph.node)


def test_the_changed_node_is_the_first_named_with_its_error_and_ranges():
    found = diff_graphs(chain(), chain(2.2), graphs.picture())
    first = found.partings[0]
    assert (first.tensor, first.node, first.operator) == ("y", "node_Mul_3", "Mul")
    assert first.error == pytest.approx(0.1, rel=1e-5)
    assert first.range_a == (0, 510)
    assert first.range_b == pytest.approx((0, 561))
    assert diff_graphs(chain(), chain(2.2), graphs.picture(), 0.11).equal


def test_overflow_is_named_where_it_begins():
    model, _ = PLANTED["gain that is taken back"]()
    naive = retype(Slots(GraphView(model)), ())
    found = diff_graphs(model, naive, graphs.picture())
    first = found.partings[0]
    assert (first.tensor, first.error) == ("large", None)
    assert first.wrong_b == pytest.approx((graphs.picture() > 65504 / 500).mean(), abs=0.01)
    assert found.agreement < 0.9
    ours, _ = to_fp16(model, [graphs.picture()])
    assert diff_graphs(model, ours, graphs.picture()).equal
    # Names of casts are not A's, and are not compared.
    assert diff_graphs(model, ours, graphs.picture()).compared == len(model.graph.node)


def test_infinite_on_both_sides_is_equal():
    model = model_of([node("Add", ["x", "hidden"], ["y"])], "y", 1, hidden=np.float32(-np.inf))
    assert diff_graphs(model, model, graphs.picture()).equal


def test_other_shapes_and_other_names_are_told():
    narrow = model_of([node("Conv", ["x", "k"], ["y"])], "y", 1, k=np.ones((2, 3, 1, 1), np.float32))
    wide = model_of([node("Conv", ["x", "k"], ["y"])], "y", 1, k=np.ones((5, 3, 1, 1), np.float32))
    assert diff_graphs(narrow, wide, graphs.picture()).partings[0].error is None
    other = chain()
    other.graph.node[-1].output[0] = other.graph.output[0].name = "labels"
    with pytest.raises(ModelError, match="both give 'mask'"):
        diff_graphs(chain(), other, graphs.picture())


def test_the_layer_is_the_module_of_the_weights():
    weight = np.eye(3, dtype=np.float32)[:, :, None, None]
    nodes = [node("Conv", ["x", "net.stem.weight"], ["y"]), node("Relu", ["y"], ["z"])]
    a, b = (model_of(nodes, "z", 9, **{"net.stem.weight": weight * by}) for by in (1, 2))
    found = diff_graphs(a, b, graphs.picture())
    assert [(p.operator, p.layer) for p in found.partings[:2]] == [("Conv", "net.stem"), ("Relu", "net.stem")]
    text = diff_text(found, ("a.onnx", "b.onnx"), 1)
    assert "net.stem" in text
    assert "Relu" not in text
    assert f"the first 1 of {len(found.partings)}" not in text
    assert f"{len(found.partings)} of {found.compared} tensors differ by more than 0.01, the first 1 of them" in text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.onnx", ("model.onnx", "")),
        ("runs/a@fp16", ("runs/a", "fp16")),
        ("me@host/model.onnx", ("me@host/model.onnx", "")),
        ("me@host/b@torch", ("me@host/b", "torch")),
    ],
)
def test_what_stands_behind_the_last_at(word, expected):
    assert split_what(word) == expected


@pytest.fixture(scope="module")
def two_precisions(tiny_bundle, tmp_path_factory):
    """The tiny bundle with an FP16 graph beside the FP32 one."""
    folder = tmp_path_factory.mktemp("two") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    opened = bundle.open_model(folder)
    ours, decisions = to_fp16(onnx.load(folder / "model.onnx"), [x[None] for x in natural_images(3, (64, 96))])
    assert {d.precision for d in decisions} == {"fp16"}
    onnx.save(ours, folder / "model.fp16.onnx")
    added = bundle.artifact(folder, "model.fp16.onnx", "onnx", "fp16")
    bundle.write_bundle(folder, opened.file.model_copy(update={"artifacts": (*opened.artifacts, added)}))
    return folder


def test_a_trained_model_keeps_its_labels_in_fp16(two_precisions, tiny_table):
    import pandas

    pictures = [tiny_table.parent / p for p in pandas.read_csv(tiny_table)["image"][:4]]
    for picture in pictures:
        image = input_of(two_precisions, picture)
        assert image.shape == (1, 64, 96, 3)
        found = diff(two_precisions, two_precisions, image, "", "fp16")
        assert found.equal
        assert found.agreement > 0.995


def test_command_says_where_and_ends_with_3(two_precisions, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["debug", "diff", *map(str, words)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    fp16 = f"{two_precisions}@fp16"
    assert run(two_precisions, two_precisions / "model.onnx")[0] == 0
    assert run(two_precisions, f"{two_precisions}@torch")[0] == 0
    code, out, _ = run(two_precisions, fp16, "--tolerance", "0", "--first", "2")
    assert code == 3
    assert "the first 2 of them" in out
    code, out, _ = run(two_precisions, fp16, "--tolerance", "0", "--json")
    content = json.loads(out)
    assert code == 3
    assert content["partings"][0]["layer"] == ""
    layers = {p["layer"].partition(".")[0] for p in content["partings"]}
    assert {"encoder", "decoder", "head"} <= layers
    assert content["equal"] is False
    code, _, err = run(two_precisions, f"{two_precisions}@fp15")
    assert code == 2
    assert "expected a precision that it holds (fp16, fp32) or a backend (" in err
    assert run(two_precisions / "model.onnx", f"{two_precisions / 'model.onnx'}@fp16")[0] == 2
    assert run(two_precisions, two_precisions / "none.onnx")[0] == 2
    assert "diff" in CliRunner().invoke(cli, ["debug", "--help"]).output
