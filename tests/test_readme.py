"""The README's own blocks are run: its configuration, its commands, its Python."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()

pytestmark = pytest.mark.xdist_group("readme")


def blocks(kind):
    """The fenced blocks of that language, "" for none."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [text for language, text in fenced if language == kind]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the tables and pictures that the README speaks of."""
    from segdeploy.data.demo import generate

    folder = tmp_path_factory.mktemp("readme")
    table = generate(folder, count=24, size=(96, 128))
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for name, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        chosen = [f"{r['image']},{r['mask']}" for r in rows if r["split"] == part]
        (folder / f"{name}.csv").write_text("\n".join(["image,mask", *chosen]) + "\n")
    from PIL import Image

    Image.open(folder / rows[0]["image"]).save(folder / "some.jpg")
    (folder / "folder").mkdir()
    shutil.copy(folder / rows[1]["image"], folder / "folder" / "other.png")
    (yaml,) = blocks("yaml")
    # Shorter and smaller, otherwise as printed.
    small = yaml.replace("epochs: 40", "epochs: 1").replace("height: 160, width: 224", "height: 96, width: 128")
    small = small.replace("height: 128, width: 192", "height: 64, width: 96")
    assert small != yaml
    (folder / "config.yaml").write_text(small)
    return folder


def test_configuration_is_valid_as_printed():
    from segdeploy.config import parse_config

    assert parse_config(blocks("yaml")[0]).trainer.epochs == 40


@pytest.fixture(scope="module")
def done(place):
    """The README's commands, run in their order; (line, finished process) of each up to the first that fails."""
    env = {**os.environ, "CXX": "no-compiler"}  # compiling takes a minute and is not what these tests are about
    finished = []
    for line in [line for block in blocks("") for line in block.splitlines() if line.startswith("segdeploy ")]:
        words = [sys.executable, "-m", "segdeploy", *shlex.split(line)[1:]]
        finished.append((line, subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, check=False)))
        if finished[-1][1].returncode:
            break
    return finished


def test_six_commands_in_their_order(place, done):
    for line, process in done:
        assert process.returncode == 0, f"{line}\n{process.stderr}"
    names = [shlex.split(line)[1] for line, _ in done]
    assert names == ["train", "evaluate", "predict", "export", "predict", "benchmark"]
    assert (place / "masks" / "some.png").read_bytes() == (place / "masks2" / "some.png").read_bytes()
    assert (place / "masks" / "other.overlay.jpg").exists()
    assert (place / "report" / "report.html").exists()


def test_python_block_gives_the_commands_mask(place, done):
    import numpy as np
    from PIL import Image

    assert done[-1][1].returncode == 0
    code = blocks("python")[0] + "\nImage.fromarray(mask).save('by_hand.png')\n"
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True)
    masks = [np.asarray(Image.open(place / name)) for name in ("by_hand.png", "masks2/some.png")]
    assert (masks[0] == masks[1]).all()


def test_tox_commands_are_the_ci_command():
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "pip install tox && tox run\n" in script
    assert "pip install tox && tox run\n" in README
    assert "pip install tox && tox run -e demo\n" in README


def test_links_lead_somewhere():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).exists(), target
