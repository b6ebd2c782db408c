"""segdeploy build: its words."""

import json
import subprocess
import sys

import pytest
from engines import SPEC, write_graph

from segdeploy.bundle import BundleFile, artifact, open_model, write_bundle
from segdeploy.cli import main
from segdeploy.data.demo import generate


@pytest.fixture
def folder(tmp_path):
    write_graph(tmp_path / "model.onnx")
    return write_bundle(
        tmp_path, BundleFile(spec=SPEC, artifacts=(artifact(tmp_path, "model.onnx", "onnx", "fp32"),))
    ).path


@pytest.fixture
def build(folder, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["build", str(folder), *words])
        said = capsys.readouterr()
        return caught.value.code, said.out + said.err

    return call


def test_every_option_arrives(build, folder):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    words = "--trt-flavour rtx --compute-capability SM86,sm120 --batch 1,1,4 --batch 8 --workspace 512"
    code, said = build(*words.split(), "--optimization-level", "1", "--height", "16", "--width", "24")
    assert code == 0
    assert said.startswith("built: there is no engine yet\nengine: ")
    assert "model.engine: fp32, built, not run on hardware (TensorRT for RTX 1." in said
    lock = open_model(folder).find("engine").about
    assert lock["compute_capabilities"] == ["8.6", "12.0"]
    assert [p["image"]["max"] for p in lock["profiles"]] == [[4, 16, 24, 3], [8, 16, 24, 3]]
    assert (lock["workspace"], lock["optimization_level"]) == (512 << 20, 1)
    code, said = build("--trt-flavour", "rtx")
    assert (code, said.splitlines()[0]) == (0, "the engine fits this machine; --force builds it again")
    assert build("--trt-flavour", "rtx", "--force")[1].startswith("built: asked for\n")


def test_version_compatible_engine_runs_where_that_is_allowed(build, folder, tensorrt, tmp_path, capsys):
    table = generate(tmp_path / "data", count=2, size=(32, 48))
    content = json.loads((folder / "bundle.json").read_text())
    content["spec"]["classes"] |= {"names": list("abcdefg"), "colors": [[i] * 3 for i in range(7)]}
    (folder / "bundle.json").write_text(json.dumps(content))
    assert build("--version-compatible")[0] == 0
    commands = [
        ["predict", str(folder), "--dataset", str(table), "-o", str(tmp_path / "masks")],
        ["evaluate", str(folder), "--dataset", str(table), "-o", str(tmp_path)],
    ]
    for words in commands:
        with pytest.raises(SystemExit) as caught:
            main([*words, "--backend", "tensorrt"])
        assert caught.value.code == 2
        assert "run it with --allow-host-code" in capsys.readouterr().err
        with pytest.raises(SystemExit) as caught:
            main([*words, "--backend", "tensorrt", "--allow-host-code"])
        assert caught.value.code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "8,1"], "segdeploy: --batch 8,1: expected MIN,OPT,MAX"),
        (["--trt-flavour", "tensorflow"], "Error: Invalid value for '--trt-flavour'"),
        (
            ["--precision", "fp16", "--trt-flavour", "rtx"],
            "expected an ONNX graph of precision fp16 for TensorRT, found fp32",
        ),
        (["--trt-flavour", "rtx", "--hardware-compatible", "ampere_plus"], "does not take it; leave it out"),
    ],
)
def test_bad_words(build, words, said):
    code, out = build(*words)
    assert code == 2
    assert said in out
    assert "Traceback" not in out


def test_without_any_tensorrt_it_says_how_to_finish(folder):
    hide = "import sys\nfor n in ('tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings'): sys.modules[n] = None\n"
    code = hide + "from segdeploy.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "build", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("segdeploy: no TensorRT is here; finish on the target: pip install")
    assert len(done.stderr.splitlines()) == 1
    assert {p.name for p in folder.iterdir()} == {"bundle.json", "model.onnx"}


def test_nothing_that_can_be_built(build, folder):
    (folder / "bundle.json").unlink()
    code, out = build()
    assert code == 2
    assert "expected a run folder" in out
