"""What a user gets wrong: exit code 2, the file and the key named, no traceback, nothing written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from segdeploy.cli import main
from segdeploy.cli.main import COMMANDS

CONFIG = """\
input_features:
  - name: image
    type: image
    preprocessing: {height: 64, width: 64}
    encoder: {type: timm, model_name: mobilenetv3_small_050, use_pretrained: false}
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [a, b, c]}
    decoder: {type: unet, channels: [8]}
trainer: {epochs: 1}
"""
HEAVY = ("torch", "timm", "onnx", "onnxruntime", "numpy", "PIL", "pydantic", "matplotlib")


def run(*words, code=None):
    """A command in its own process; what it says on standard error, after the exit code 2 and no traceback."""
    start = ["-m", "segdeploy"] if code is None else ["-c", code]
    done = subprocess.run(
        [sys.executable, *start, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def fails(capsys):
    """The same in this process, which has imported torch already."""

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words)])
        assert caught.value.code == 2
        return capsys.readouterr().err

    return call


@pytest.fixture
def folder(tmp_path):
    """config.yaml and data.csv with 20 small samples, all of them good."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    rng = np.random.default_rng(0)
    rows = ["image,mask,split"]
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
        Image.fromarray(rng.integers(0, 3, (40, 50), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.jpg,{i}.png,{'train' if i < 12 else 'val'}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return tmp_path


def train(folder, config="config.yaml", table="data.csv"):
    return ("train", "-c", folder / config, "--dataset", folder / table, "-o", folder / "out", "--device", "cpu")


def test_mistakes_in_the_configuration(folder):
    text = CONFIG.replace("model_name", "modell_name").replace("epochs: 1", "epohcs: 1") + "trianer: {}\n"
    (folder / "config.yaml").write_text(text)
    done = run(*train(folder))
    assert done.returncode == 2
    where = f"{folder / 'config.yaml'}"
    for place, said in (
        (f"{where}:5: input_features[0].encoder.modell_name", "unknown key; did you mean 'model_name'?"),
        (f"{where}:11: trainer.epohcs", "unknown key; did you mean 'epochs'?"),
        (f"{where}:12: trianer", "unknown key; did you mean 'trainer'?"),
    ):
        assert f"{place}: {said}" in done.stderr
    assert not (folder / "out").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{below}'] * 9)}]\n" for here, below in zip("bcdefghij", "abcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "once its aliases (&, *) are expanded; refused"),
        ("a: !!python/object/apply:os.system [touch proof]", "the tag !!python/object/apply:os.system is refused"),
        ("# " + "x" * (1 << 20), "at most 1 MiB"),
        ("a:\n\t- b", "not valid YAML"),
        ("", "expected keys and values at the top"),
    ],
    ids=["bomb", "tag", "size", "tab", "empty"],
)
def test_text_that_is_no_configuration(folder, monkeypatch, text, said):
    monkeypatch.chdir(folder)
    (folder / "config.yaml").write_text(text)
    before = sorted(folder.iterdir())
    done = run(*train(folder))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"segdeploy: {folder / 'config.yaml'}")
    assert said in line
    assert sorted(folder.iterdir()) == before  # no out, no proof


def test_all_broken_samples_are_named(folder):
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:500])
    (folder / "4.jpg").unlink()
    Image.new("L", (50, 41)).save(folder / "5.png")
    Image.new("L", (50, 40), 7).save(folder / "13.png")
    (folder / "14.png").write_text("not a mask")
    done = run(*train(folder))
    assert done.returncode == 2
    head, *lines = done.stderr.splitlines()
    assert head == "segdeploy: the data have 5 error(s):"
    assert [line.partition(": ")[0] for line in lines] == [
        "unreadable (3)", *(f"  {folder / n}" for n in ("3.jpg", "4.jpg", "14.png")),
        "size", f"  {folder / '5.png'}", "stray", f"  {folder / '13.png'}",
    ]  # fmt: skip
    assert "expected the size of 5.jpg, 50x40, found 50x41" in lines[5]
    assert "expected class ids 0 to 2 and 255 for ignore, found 7" in lines[7]
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "data.csv").unlink(), "data.csv: expected a table or a folder"),
        (lambda f: (f / "data.csv").write_text("image,label\na,b\n"), "expected a column 'mask', found image, label"),
        (lambda f: (f / "data.csv").write_text("image,mask\n0.jpg,\n"), "data.csv:2: expected a path in"),
        (lambda f: (f / "data.csv").write_bytes(b"\x89PNG\r\n\x1a\n\0\0"), "data.csv: expected a CSV file in UTF-8"),
        (lambda f: (f / "config.yaml").unlink(), "config.yaml: cannot be read: No such file"),
        (lambda f: (f / "config.yaml").write_bytes(b"a: \xff"), "config.yaml: expected UTF-8 text"),
        (lambda f: (f / "out").write_text("a file"), "model.json: cannot be written: "),
    ],
)
def test_files_of_a_training(folder, fails, change, said):
    change(folder)
    before = sorted(folder.iterdir())
    assert said in fails(*train(folder))
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "expected -c CONFIG, or --resume RUN"),
        (["train", "-c", "config.yaml"], "expected --dataset, or both --training-set and --validation-set"),
        (["train", "-c", "config.yaml", "--set", "trainer.epochs"], "--set trainer.epochs: expected KEY=VALUE"),
        (["train", "-c", "config.yaml", "--set", "trainer.epohcs=3"], "did you mean 'epochs'?"),
        (["train", "--resume", "none"], "none"),
        (["evaluate", "none", "--dataset", "data.csv"], "none: expected a run folder"),
        (["predict", "none", "1.jpg"], "found none of them; there is nothing at this path"),
        (["predict", "runs", "1.jpg"], "found none of them; it holds runs: did you mean runs/mine?"),
        (["train", "--resume", "runs"], "found none; it holds runs: did you mean runs/mine?"),
        (["train", "--resume", "runs/mine"], "latest.safetensors, found none\n"),
        (["predict", "data.csv", "1.jpg"], "data.csv: expected a run folder"),
        (["export", "none"], "none: expected a run folder"),
        (["benchmark", "none", "--dataset", "data.csv"], "none: expected a run folder"),
        (
            ["plugins", "show", "unett"],
            "no encoder, decoder, backend, command or tracker is named 'unett'; did you mean 'unet'?",
        ),
        (["trian"], "No such command 'trian'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_words_of_the_command_line(folder, fails, monkeypatch, words, said):
    monkeypatch.chdir(folder)
    (folder / "runs/mine/model").mkdir(parents=True)
    (folder / "runs/mine/model/model.json").write_text("{}")
    before = sorted(folder.iterdir())
    assert said in fails(*words)
    assert sorted(folder.iterdir()) == before


def test_help_needs_no_heavy_package():
    code = f"""
import json, sys
from segdeploy.cli import main
for words in {[[], *([c] for c in COMMANDS), ["plugins", "list"], ["plugins", "show"]]}:
    try:
        main([*words, "--help"])
    except SystemExit as e:
        assert e.code == 0
print(json.dumps([m for m in {HEAVY} if m in sys.modules]))
"""
    done = run(code=code)
    assert done.returncode == 0
    *said, heavy = done.stdout.splitlines()
    assert json.loads(heavy) == []
    for command in COMMANDS:
        assert any(line.startswith(f"Usage: segdeploy {command} ") for line in said)
        assert any(line.split()[:1] == [command] for line in said)  # in the list of commands
