import json
import shutil

import pytest

from segdeploy.bundle import open_model
from segdeploy.errors import ModelError


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit(bundle, change):
    content = json.loads((bundle / "bundle.json").read_text())
    change(content)
    (bundle / "bundle.json").write_text(json.dumps(content))


def test_run_and_bundle_and_file_open_alike(tiny_run, tiny_bundle):
    specs = [open_model(p).spec for p in (tiny_run, tiny_bundle, tiny_bundle / "model.onnx")]
    assert specs[0] == specs[1] == specs[2]
    assert open_model(tiny_run).find("weights") is not None
    assert open_model(tiny_run).find("onnx") is None
    assert open_model(tiny_bundle / "model.onnx").find("onnx").file == "model.onnx"


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors"])
def test_one_changed_byte_is_noticed(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}: its bytes are not those"):
        open_model(bundle)


def test_missing_file_is_named(bundle):
    (bundle / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx: is missing"):
        open_model(bundle)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/hostname"])
def test_files_outside_the_bundle_are_refused(bundle, name):
    edit(bundle, lambda c: c["artifacts"][1].update(file=name))
    with pytest.raises(ModelError, match="outside the bundle"):
        open_model(bundle)


def test_newer_or_broken_description_is_one_line(bundle):
    edit(bundle, lambda c: c.update(schema_version=9))
    with pytest.raises(ModelError, match="schema_version"):
        open_model(bundle)
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(ModelError, match="not a bundle of this segdeploy"):
        open_model(bundle)


def test_nothing_there(tmp_path):
    with pytest.raises(ModelError, match="expected a run folder"):
        open_model(tmp_path)
    (tmp_path / "x.onnx").write_bytes(b"no onnx")
    with pytest.raises(ModelError, match="not an ONNX model"):
        open_model(tmp_path / "x.onnx")


def test_a_lone_graph_says_its_precision_and_target(tiny_bundle, tmp_path):
    import onnx

    model = onnx.load(tiny_bundle / "model.onnx")
    (alone,) = open_model(tiny_bundle / "model.onnx").artifacts
    assert (alone.precision, alone.target) == ("fp32", "")
    for key, value in (("precision", "int8"), ("target", "tensorrt")):
        model.metadata_props.add(key=f"segdeploy.{key}", value=value)
    onnx.save(model, tmp_path / "alone.onnx")
    (alone,) = open_model(tmp_path / "alone.onnx").artifacts
    assert (alone.precision, alone.target) == ("int8", "tensorrt")
