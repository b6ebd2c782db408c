"""segdeploy inspect --trt: what it prints, its JSON, its exit codes."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from segdeploy.cli import main
from segdeploy.runtime import trt

RTX = pytest.mark.skipif(
    not any(__import__("importlib.util").util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings")),
    reason="TensorRT for RTX is not installed",
)


@pytest.fixture
def inspect(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", "--trt", *map(str, words)])
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return call


@pytest.fixture
def broken(tmp_path):
    """A file of somebody else's: no description of segdeploy in it, and a node that no TensorRT takes."""
    up = helper.make_node("Resize", ["x", "", "s"], ["y"], name="up", mode="linear", antialias=1)
    up.metadata_props.add(key="segdeploy.layer", value="decoder.up.0")
    x, y = (helper.make_tensor_value_info(name, T.FLOAT, [1, 4, side, side]) for name, side in (("x", 16), ("y", 32)))
    graph = helper.make_graph([up], "g", [x], [y], [onnx.numpy_helper.from_array(np.float32([1, 1, 2, 2]), "s")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@RTX
def test_a_bundle_that_builds(inspect, tiny_bundle):
    code, said, _ = inspect(tiny_bundle)
    assert code == 0
    assert said.startswith(f"{tiny_bundle / 'model.onnx'} fp32\n  lint: nothing found\n  TensorRT for RTX ")
    assert "its parser takes this graph" in said
    assert said.endswith("will it build? TensorRT 10: yes, TensorRT 11: yes, RTX: yes\n")


@RTX
def test_a_foreign_file_that_does_not(inspect, broken):
    code, said, _ = inspect(broken)
    assert code == 3
    assert "error antialias: an antialiased Resize (antialias=1) [TensorRT 10, 11, RTX]" in said
    assert "    up (Resize) of decoder.up.0\n    -> resize without it, or once before the network" in said
    assert "its parser refuses this graph\n    up (Resize) of decoder.up.0: Antialiasing is not supported" in said
    assert said.endswith("will it build? TensorRT 10: NO, TensorRT 11: NO, RTX: NO\n")


@RTX
def test_json(inspect, broken):
    code, said, _ = inspect(broken, "--json")
    about = json.loads(said)
    assert code == 3
    assert about["builds"] == {"10": False, "11": False, "RTX": False}
    (graph,) = about["graphs"]
    (finding,) = graph["findings"]
    assert (finding["row"], finding["severity"], finding["node"]) == ("antialias", "error", "up")
    (verdict,) = (v for v in graph["verdicts"] if v["flavour"] == "tensorrt_rtx")
    assert verdict["refusals"][0]["layer"] == "decoder.up.0"


@RTX
def test_the_target_decides(inspect, broken):
    model = onnx.load(broken)
    model.graph.node[0].CopyFrom(helper.make_node("HannWindow", ["n"], ["y"], name="window"))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.int64(16), "n"))
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    broken.write_bytes(model.SerializeToString())
    assert inspect(broken)[0] == 0
    code, said, _ = inspect(broken, "--trt-target", "10.2")
    assert code == 3
    assert "since-10.3" in said
    assert inspect(broken, "--trt-target", "rtx")[0] == 0
    code, _, said = inspect(broken, "--trt-target", "8")
    assert code == 2
    assert "expected 10, 11" in said


def test_without_any_tensorrt_the_lint_speaks_alone(inspect, broken, monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, said, _ = inspect(broken)
    assert code == 3
    assert "error antialias" in said
    assert "not asked: TensorRT is not installed" in said
    assert "not asked: TensorRT for RTX is not installed" in said


@RTX
def test_without_onnx_the_parser_speaks_alone(inspect, broken, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said, _ = inspect(broken, "--trt-target", "RTX")
    assert code == 3
    assert "not linted: pip install onnx" in said
    assert "up (Resize): Antialiasing is not supported" in said
    monkeypatch.setattr(trt, "_imported", lambda flavour: None)
    code, _, said = inspect(broken)
    assert code == 2
    assert "neither onnx nor TensorRT is installed" in said


@RTX
def test_a_host_without_onnx_has_the_parsers_verdict(broken):
    hide = "import sys; sys.modules['onnx'] = None\nfrom segdeploy.cli import main; main(sys.argv[1:])"
    words = ["inspect", "--trt", str(broken), "--trt-target", "RTX"]
    done = subprocess.run([sys.executable, "-c", hide, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "not linted: pip install onnx" in done.stdout
    assert "up (Resize): Antialiasing is not supported" in done.stdout


def test_a_run_stands_for_its_bundle(inspect, tiny_run, tiny_bundle, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    code, _, said = inspect(run)
    assert code == 2
    assert "expected an .onnx file, a bundle, or a run with one; segdeploy export makes it" in said
    shutil.copytree(tiny_bundle, run / "bundle")
    code, said, _ = inspect(run)
    assert code == 0
    assert str(run / "bundle" / "model.onnx") in said


@pytest.mark.parametrize("content", [b"nothing", b""])
def test_files_that_are_no_graph(inspect, tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    code, _, said = inspect(path)
    assert code == 2
    assert said.count("\n") == 1
    assert f"{path}: expected an ONNX file" in said


def test_one_model_at_a_time(inspect, broken):
    code, _, said = inspect(broken, broken)
    assert code == 2
    assert "--trt: expected one .onnx file, bundle or run, got 2" in said
