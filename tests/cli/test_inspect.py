"""segdeploy inspect: what it prints, and its exit codes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from segdeploy import __version__
from segdeploy.cli import main


@pytest.fixture
def inspect(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", *map(str, words)])
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return call


@pytest.fixture
def data(tmp_path):
    """Folders images/ and masks/ with six samples, and a table for each half."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.jpg")
        mask = rng.integers(0, 3, (5, 6), dtype=np.uint8).repeat(4, 0).repeat(5, 1)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    for name, rows in (("train", range(3)), ("val", range(3, 6))):
        lines = [f"images/{i}.jpg,masks/{i}.png" for i in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,mask", *lines]))
    (tmp_path / "classes.yaml").write_text("classes: [road, car, tree]\n")
    return tmp_path


def test_clean_folder(inspect, data):
    code, said, _ = inspect(data)
    assert code == 0
    lines = [line.split() for line in said.splitlines()]
    assert ["all", "6", "6", "30x20", "JPEG", "RGB", "PNG", "L"] in lines
    assert [line[:2] for line in lines if line[:1] and line[0].isdigit()] == [
        ["0", "class_0"], ["1", "class_1"], ["2", "class_2"],
    ]  # fmt: skip
    assert said.endswith("masks are read as `encoding: class_id`\nnothing looks wrong\n")


def test_parts_by_name_and_errors(inspect, data):
    shutil.copy(data / "images" / "0.jpg", data / "images" / "3.jpg")
    words = (data / "train.csv", data / "val.csv", "--classes", data / "classes.yaml")
    code, said, _ = inspect(*words)
    assert code == 2
    assert f"1 error(s)\nleak\n  {data / 'images' / '3.jpg'}: stands in validation and in training" in said
    code, said, _ = inspect(*words, "--json")
    found = json.loads(said)
    assert code == 2
    assert {name: p["samples"] for name, p in found["parts"].items()} == {"training": 3, "validation": 3}
    masks = [np.asarray(Image.open(data / "masks" / f"{i}.png")) for i in range(6)]
    assert [(v["value"], v["class"], v["pixels"], v["masks"]) for v in found["values"]] == [
        (c, name, sum(int((m == c).sum()) for m in masks), sum(int((m == c).any()) for m in masks))
        for c, name in enumerate(("road", "car", "tree"))
    ]
    assert sum(v["share"] for v in found["values"]) == pytest.approx(1)
    assert [(f["severity"], f["rule"]) for f in found["findings"]] == [("error", "leak")]


def test_tables_of_one_name_are_all_looked_at(inspect, data):
    for name, rows in (("a", (0, 1)), ("b", (2, 3, 4))):
        (data / name).mkdir()
        lines = [f"../images/{i}.jpg,../masks/{i}.png" for i in rows]
        (data / name / "data.csv").write_text("\n".join(["image,mask", *lines]))
    _, said, _ = inspect(data / "a" / "data.csv", data / "b" / "data.csv", "--json")
    parts = json.loads(said)["parts"]
    assert {name: p["samples"] for name, p in parts.items()} == {"data": 2, str(data / "b" / "data.csv"): 3}


def test_configuration_gives_classes_split_and_what_is_allowed(inspect, data):
    shutil.copy(data / "images" / "0.jpg", data / "images" / "3.jpg")
    config = data / "config.yaml"
    config.write_text(
        "input_features: [{name: image, type: image, preprocessing: {height: 64, width: 64}, encoder: {type: unet}}]\n"
        "output_features: [{name: mask, type: image, preprocessing: {classes: [a, b, c]}, decoder: {type: unet}}]\n"
        "preprocessing: {split: {probabilities: [0.5, 0.5, 0]}, allow: [leak, absent-class, conflict]}\n"
    )
    code, said, _ = inspect(data, "-c", config, "--json")
    found = json.loads(said)
    assert code == 0
    assert found["classes"] == ["a", "b", "c"]
    assert {name: p["samples"] for name, p in found["parts"].items()} == {"training": 3, "validation": 3}
    assert found["findings"] == []


def test_configuration_names_the_tables(inspect, data, tmp_path):
    config = tmp_path / "with_data.yaml"
    config.write_text("""
data: {training_set: train.csv, validation_set: val.csv}
input_features: [{name: image, type: image, encoder: unet}]
output_features: [{name: mask, type: image, preprocessing: {classes: [road, car, tree]}, decoder: unet}]
""")
    code, said, _ = inspect("-c", config)
    assert code == 0
    lines = [line.split()[:2] for line in said.splitlines()]
    assert ["training", "3"] in lines
    assert ["validation", "3"] in lines
    code, _, said = inspect()
    assert code == 2
    assert said.startswith("segdeploy: expected a table, a folder, a model, or -c CONFIG")


def test_masks_that_fit_no_class_map(inspect, data):
    for i in range(6):
        Image.fromarray(np.full((20, 30), 7, np.uint8)).save(data / "masks" / f"{i}.png")
    (data / "images" / "0.jpg").write_bytes(b"")
    code, said, _ = inspect(data)
    assert code == 2
    assert "no class map fits" in said
    assert "expected masks of 2 to 255 values, found 1: 7" in said
    assert f"{data / 'images' / '0.jpg'}: the file is empty (0 bytes)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "none: expected a table or a folder"),
        ([".", "--classes", "none.yaml"], "none.yaml: cannot be read"),
        ([".", "--classes", "bad.yaml"], "bad.yaml: expected `classes` and `ignore_index`"),
        ([".", "--classes", "classes.yaml", "-c", "x.yaml"], "expected either --config or --classes"),
    ],
)
def test_mistakes(inspect, data, monkeypatch, words, said):
    monkeypatch.chdir(data)
    (data / "bad.yaml").write_text("clases: [a, b]\n")
    code, _, error = inspect(*words)
    assert code == 2
    assert said in error


def test_run_and_bundle(inspect, tiny_run, tiny_bundle):
    code, said, _ = inspect(tiny_run)
    assert code == 0
    assert f"encoder      timm (segdeploy {__version__}) " in said
    assert "model_name: mobilenetv3_small_050" in said
    assert f"decoder      fpn (segdeploy {__version__})" in said
    assert "input        64 x 96 RGB, resize stretch" in said
    assert "parameters" in said
    code, said, _ = inspect(tiny_bundle, "--json")
    about = json.loads(said)
    assert code == 0
    assert about["classes"][:2] == ["background", "disc"]
    assert {a["kind"] for a in about["artifacts"]} >= {"onnx"}
    assert all(v["passed"] for v in about["verification"])
    _, said, _ = inspect(tiny_bundle)
    assert ": passed, agreement " in said
    code, said, _ = inspect(next(tiny_bundle.glob("*.onnx")))
    assert code == 0
    assert "classes      7: background, disc" in said
