"""The README's own blocks are run: its configuration, its commands, its Python."""

import csv
import json
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
    """A folder with the data, tables and pictures that the README speaks of."""
    from segdeploy.data.demo import generate

    folder = tmp_path_factory.mktemp("readme")
    table = generate(folder / "data", count=24, size=(96, 128))
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for name, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        chosen = [f"data/{r['image']},data/{r['mask']}" for r in rows if r["split"] == part]
        (folder / f"{name}.csv").write_text("\n".join(["image,mask", *chosen]) + "\n")
    table.unlink()  # what is left are images/ and masks/
    from PIL import Image

    Image.open(folder / "data" / rows[0]["image"]).save(folder / "some.jpg")
    (folder / "folder").mkdir()
    shutil.copy(folder / "data" / rows[1]["image"], folder / "folder" / "other.png")
    save_models(folder)
    return folder


def save_models(folder):
    """A model of transformers, one of segmentation_models.pytorch, and one that a function makes; random weights."""
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import save_file
    from torch import nn
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    segformer = SegformerConfig(num_labels=3, hidden_sizes=[16, 32, 40, 48], depths=[1] * 4, decoder_hidden_size=32)
    network = SegformerForSemanticSegmentation(segformer)
    # Logits of order 1, which fresh class layers do not give.
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=8.0)
    network.save_pretrained(folder / "segformer-folder")
    SegformerImageProcessor(size={"height": 64, "width": 96}).save_pretrained(folder / "segformer-folder")
    unet = smp.Unet("tu-mobilenetv3_small_050", encoder_weights=None, classes=3)
    torch.nn.init.normal_(unet.segmentation_head[0].weight, std=0.3)
    unet.save_pretrained(folder / "unet-folder")
    (folder / "package").mkdir()
    (folder / "package" / "module.py").write_text(
        "from torch import nn\n\n\ndef function():\n    return nn.Conv2d(3, 2, 3, padding=1)\n"
    )
    save_file(nn.Conv2d(3, 2, 3, padding=1).state_dict(), folder / "net.safetensors")
    (folder / "classes.yaml").write_text("classes: [road, car]\n")


def segdeploy(line, folder):
    """Run a command line of the README in `folder`."""
    # Compiling takes a minute and is not what these tests are about. `site` is where they install the new package.
    env = {**os.environ, "CXX": "no-compiler", "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(folder)])}
    words = [sys.executable, "-m", "segdeploy", *shlex.split(line)[1:]]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_configuration_trains_as_printed(place):
    (yaml,) = blocks("yaml")
    (place / "printed.yaml").write_text(yaml)
    done = segdeploy("segdeploy train -c printed.yaml -o printed --set trainer.epochs=1", place)
    assert done.returncode == 0, done.stderr
    assert "epoch   1" in done.stdout


@pytest.fixture(scope="module")
def done(place):
    """The README's commands, run in their order; (line, finished process) of each up to the first that fails."""
    finished = []
    lines = [line for block in blocks("") for line in block.replace("\\\n", "").splitlines()]
    for line in [line for line in lines if line.startswith("segdeploy ") or "my-decoder[test]" in line]:
        if line.startswith("pip install"):  # not into the environment of these tests, and without its extras
            options = ["-q", "--no-deps", "--no-build-isolation", "--target", "site"]
            subprocess.run([sys.executable, "-m", "pip", "install", *options, "./my-decoder"], cwd=place, check=True)
            continue
        finished.append((line, segdeploy(line, place)))
        # That the FP16 graph parts from the FP32 one by more than the tolerance is an answer, not a failure.
        if finished[-1][1].returncode not in ((0, 3) if "debug diff" in line else (0,)):
            break
        config = place / "config.yaml"
        if line.startswith("segdeploy init"):  # shorter, otherwise as it was written
            text = config.read_text()
            assert re.search(r"epochs: \d+", text)
            # A model of one epoch has near-ties everywhere, which fewer bits let fall to the other side.
            loose = "export: {fp16: {max_miou_drop: 1, min_agreement: 0}, int8: {max_miou_drop: 1, min_agreement: 0}}\n"
            quick = "benchmark: {rounds: 2, seconds: 0, warmup_seconds: 1, cold_starts: 1}\n"
            config.write_text(re.sub(r"epochs: \d+", "epochs: 1", text) + loose + quick)
    return finished


def test_commands_in_their_order(place, done):
    for line, process in done:
        assert process.returncode in ((0, 3) if "debug diff" in line else (0,)), f"{line}\n{process.stderr}"
    names = [shlex.split(line)[1] for line, _ in done]
    road = ["init", "inspect", "train", "evaluate", "predict", "export", "predict", "benchmark"]
    light = ["export", "inspect", "inspect", "debug", "predict", "export", "build"]
    measured = ["benchmark", "gate", "gate"]
    assert names == [*road, *light, *measured, "import", "import", "import", "plugins", "plugins"]
    said = {line: process.stdout for line, process in done}
    assert "decisions.fp16.json\nFP32: " in next(
        text for line, text in said.items() if "--precision" in line and "inspect" in line
    )
    assert (place / "masks3" / "some.png").exists()
    lock = json.loads((place / "shipped" / "engine.lock.json").read_text())
    assert (lock["precision"], lock["compute_capabilities"], lock["profiles"][0]["image"]["opt"][0]) == (
        "fp16",
        ["8.6", "12.0"],
        4,
    )
    assert "built, not run on hardware" in next(
        text for line, text in said.items() if line.startswith("segdeploy build")
    )
    compared = re.findall(r"the logits differ by (\S+) at most", "".join(p.stdout for _, p in done))
    assert len(compared) == 2
    assert max(map(float, compared)) < 1e-4
    largest = re.findall(r"\(the largest is (\S+)\)", "".join(p.stdout for _, p in done))
    assert all(0.3 < float(x) < 30 for x in largest), largest
    assert "nothing looks wrong" in done[1][1].stdout
    assert (place / "masks" / "some.png").read_bytes() == (place / "masks2" / "some.png").read_bytes()
    assert (place / "masks" / "other.overlay.jpg").exists()
    assert (place / "report" / "report.html").exists()
    assert json.loads((place / "compared" / "report.json").read_text())["comparison"]["rows"]
    assert (place / "gates.xml").exists()
    assert (place / "summary.md").exists()


def test_ludwigs_python_runs_with_the_import_line_changed(tmp_path):
    """The page's configuration and Python; the encoder is small and starts from nothing, one epoch at 64x64."""
    from segdeploy.data.demo import generate

    with generate(tmp_path, count=20, size=(64, 64)).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        from PIL import Image

        mask = Image.open(tmp_path / row["mask"])
        mask.point(lambda v: 1 + min(v, 2), "L").save(tmp_path / row["mask"])  # trimaps hold 1, 2 and 3
    for name, chosen in (("pets_segmentation", rows), ("pets_test", rows[:4])):
        lines = ["image,mask", *(f"{r['image']},{r['mask']}" for r in chosen)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    config = (Path(__file__).parent / "config" / "golden" / "page_unet.yaml").read_text()
    for old, new in (
        ("use_pretrained: true", "use_pretrained: false"),
        ("convnextv2_tiny", "convnextv2_atto"),
        ("epochs: 30", "epochs: 1"),
        ("256", "64"),
    ):
        assert old in config
        config = config.replace(old, new)
    (tmp_path / "segmentation_config.yaml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[1]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


def test_python_block_gives_the_commands_mask(place, done):
    import numpy as np
    from PIL import Image

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
