"""`segdeploy plugins new`: the package that it writes is installed, checked, trained, exported and measured."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from segdeploy.conformance.table import rules_for
from segdeploy.data.demo import CLASS_NAMES
from segdeploy.errors import ConfigError, SegdeployError
from segdeploy.plugin.new import new_plugin, template_folder

CONFIG = f"""
input_features:
  - name: image
    type: image
    preprocessing: {{height: 32, width: 48}}
    encoder: {{type: unet, base_channels: 4, num_stages: 3}}
output_features:
  - name: mask
    type: image
    preprocessing: {{classes: [{", ".join(CLASS_NAMES)}]}}
    decoder: {{type: my_decoder, width: 8}}
trainer: {{epochs: 1, batch_size: 4}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a new package, and where pip installed it."""
    folder = new_plugin("my-decoder", tmp_path_factory.mktemp("new"))
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", site, folder]
    subprocess.run(pip, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return folder, site


@pytest.fixture
def segdeploy(made, tmp_path):
    """A function of command-line words that runs segdeploy with the new package at hand."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "segdeploy", *map(str, words)],
            env=os.environ | {"PYTHONPATH": str(made[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_every_word_of_the_template_is_renamed(made):
    files = [f for f in made[0].rglob("*") if f.is_file()]
    source = template_folder()
    patterns = ("pyproject.toml", "README.md", "src/*/*.py", "tests/*.py")
    assert len(files) == sum(len(list(source.glob(pattern))) for pattern in patterns) >= 5
    said = " ".join(str(f.relative_to(made[0])) + f.read_text() for f in files).lower()
    assert "template" not in said
    project = tomllib.loads((made[0] / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-decoder"
    assert project["entry-points"]["segdeploy"] == {"decoder.my_decoder": "my_decoder.decoder"}
    assert "class MyDecoder(nn.Module)" in (made[0] / "src" / "my_decoder" / "decoder.py").read_text()


@pytest.mark.parametrize(
    "name", ["My-Decoder", "my_decoder", "-x", "x-", "../x", "a b", "", "segdeploy", "import", "9x"]
)
def test_name_that_no_package_can_have_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="expected lower-case words joined by dashes"):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"), [("torch", "a package named torch is"), ("unet", "a decoder named unet, seg")]
)
def test_name_that_is_taken_is_refused(name, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_there_is_kept(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(SegdeployError, match="x: is there already"):
        new_plugin("x", tmp_path)
    assert list((tmp_path / "x").iterdir()) == []


def test_new_packages_own_test_run_holds_the_kit(made):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    env = os.environ | {"PYTHONPATH": str(made[1])}
    done = subprocess.run(words, env=env, cwd=made[0], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    # Its own test, and every rule but that about auxiliary maps, which it has not.
    assert passed == 1 + len(rules_for("decoder")) - 1


def test_new_decoder_trains_exports_and_appears_in_a_report(segdeploy, tiny_table, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    trained = segdeploy("train", "-c", "config.yaml", "--dataset", tiny_table, "-o", "runs", "--device", "cpu")
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "runs" / "experiment_run"
    exported = segdeploy("export", run, "-o", "bundle", "--verify", run / "splits" / "test.csv")
    assert exported.returncode == 0, exported.stderr
    small = ("--rounds", "1", "--batches", "1", "--backends", "onnxruntime")
    measured = segdeploy("benchmark", "bundle", "--dataset", run / "splits" / "test.csv", "-o", "report", *small)
    assert measured.returncode == 0, measured.stderr
    part = json.loads((tmp_path / "report" / "report.json").read_text())["spec"]["decoder"]
    assert (part["name"], part["distribution"], part["version"]) == ("my_decoder", "my-decoder", "0.1.0")
    assert "my_decoder (my-decoder 0.1.0)" in (tmp_path / "report" / "report.html").read_text()
