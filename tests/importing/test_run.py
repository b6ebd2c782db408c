"""From a folder, or a function, to a run that does what runs do; the command line, and what it refuses."""

import json
import re
import sys

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segdeploy.bundle import open_model
from segdeploy.cli import main
from segdeploy.encoders.factory import TRUSTED
from segdeploy.files import sha256
from segdeploy.runtime.runner import open_runner

SIZE = ("--height", 64, "--width", 96)
NETWORKS = """
import torch
from torch import nn

class Quarter(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 5, 4, 2)
    def forward(self, image):
        return {"out": self.conv(image), "aux": None}

def three():
    return Quarter(3)

def one():
    return Quarter(1)

def picky():
    return nn.Sequential(Quarter(3), nn.Conv2d(4, 1, 1))

def wide():
    return nn.Conv2d(3, 300, 1)

class Broken(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error
    def forward(self, image):
        raise self.error("no such thing\\nand more")

def attribute():
    return Broken(AttributeError)

def key():
    return Broken(KeyError)

def text():
    return "no network"
"""


@pytest.fixture
def segdeploy(capsys):
    """The command: (exit code, output, errors)."""

    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words)])
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return call


@pytest.fixture
def data(tmp_path):
    """A folder with six images and masks of noise."""
    random = np.random.default_rng(0)
    for kind, high, shape in (("images", 256, (70, 90, 3)), ("masks", 3, (70, 90))):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(random.integers(0, high, shape, dtype=np.uint8)).save(tmp_path / "data" / kind / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "classes.yaml").write_text("classes: [road, {name: car, color: [255, 0, 0]}, tree]\n")
    return tmp_path / "classes.yaml"


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A module of the user's, importable as `own_networks`."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv(TRUSTED, "")
    yield
    sys.modules.pop("own_networks", None)


def normalised(picture, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    scaled = (torch.from_numpy(picture) / 255 - torch.tensor(mean)) / torch.tensor(std)
    return scaled.permute(0, 3, 1, 2)


def test_the_whole_road_of_an_imported_network(segdeploy, saved, data, classes, tmp_path):
    original, folder = saved("Unet", "tu-mobilenetv3_small_050", classes=3, decoder_channels=(32, 24, 16, 16, 8))
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    code, said, errors = segdeploy("import", folder, "-o", run, *SIZE, "--classes", classes)
    assert (code, errors) == (0, "")
    assert "compared with segmentation-models-pytorch" in said
    assert said.endswith(f"run: {run}\n")
    assert not (tmp_path / "original" / "run").exists()

    about = json.loads((run / "description.json").read_text())
    source = about["imported"]
    assert source["files"]["model.safetensors"] == sha256(folder / "model.safetensors")
    assert source["folder"] == "original"
    assert str(tmp_path) not in (run / "description.json").read_text()
    assert about["parameters"] == sum(p.numel() for p in original.parameters())
    assert source["compared"]["difference"] < 1e-4

    code, said, _ = segdeploy("inspect", run)
    assert code == 0
    assert f"{about['parameters']:,}" in said
    assert "3: road, car, tree" in said

    assert segdeploy("export", run, "-o", bundle, "--verify", data)[0] == 0
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = original(normalised(picture)).argmax(1).numpy()
    assert len(np.unique(expected)) > 1
    assert (session.run(None, {"image": picture})[0] == expected).mean() >= 0.999
    with open_runner(open_model(run), "torch") as runner:
        assert (runner.run(picture) == expected).mean() >= 0.999

    assert segdeploy("evaluate", run, "--dataset", data)[0] == 0
    assert (run / "test_statistics.json").is_file()
    # Its own configuration trains it further, from its own weights and with its own class layer.
    words = ("--set", "trainer.epochs=1", "--set", "trainer.learning_rate=1e-9", "--set", "trainer.batch_size=2",
             "--set", "preprocessing.split.probabilities=[0.5,0.25,0.25]", "--skip-save-log")  # fmt: skip
    code, said, errors = segdeploy("train", "--start-from", run, "--dataset", data, "-o", tmp_path / "runs", *words)
    assert code == 0, errors
    trained = open_model(tmp_path / "runs" / "experiment_run")
    assert trained.spec.head.kernel_size == 3
    assert trained.spec.classes.names == ("road", "car", "tree")


def test_segformer_of_transformers(segdeploy, tmp_path, capsys):
    torch.manual_seed(0)
    widths = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], "depths": [1, 1, 1, 1]}
    original = SegformerForSemanticSegmentation(SegformerConfig(**widths, decoder_hidden_size=16, num_labels=3)).eval()
    original.save_pretrained(tmp_path / "original")
    capsys.readouterr()
    code, said, errors = segdeploy("import", tmp_path / "original", "-o", tmp_path / "run", *SIZE)
    assert (code, errors) == (0, "")
    assert "compared with transformers" in said
    picture = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = original(normalised(picture)).logits
    expected = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear").argmax(1).numpy()
    with open_runner(open_model(tmp_path / "run"), "torch") as runner:
        assert (runner.run(picture) == expected).mean() >= 0.999
    assert json.loads((tmp_path / "run" / "model" / "model_hyperparameters.json").read_text())


def test_what_the_user_declares_stands_above_the_source(segdeploy, saved, tmp_path):
    _, folder = saved("FPN", "tu-mobilenetv3_small_050", classes=3)
    words = ("--resize", "letterbox", "--mean", "0.1,0.2,0.3", "--std", "1,2,3")
    assert segdeploy("import", folder, "-o", tmp_path / "run", *SIZE, *words)[0] == 0
    size = open_model(tmp_path / "run").spec.preprocessing
    assert (size.resize, size.mean, size.std) == ("letterbox", (0.1, 0.2, 0.3), (1, 2, 3))


def test_without_the_original_library_nothing_is_compared(segdeploy, saved, tmp_path, monkeypatch):
    _, folder = saved("FPN", "tu-mobilenetv3_small_050", classes=3)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)  # Python's own way to say: not importable
    code, said, _ = segdeploy("import", folder, "-o", tmp_path / "run", *SIZE)
    assert code == 0
    assert "note: not compared with the original: pip install segmentation-models-pytorch" in said
    assert json.loads((tmp_path / "run" / "description.json").read_text())["imported"]["compared"] is None


@pytest.mark.parametrize("align", [False, True])
def test_a_network_of_the_users_own(segdeploy, networks, data, classes, tmp_path, monkeypatch, align):
    import own_networks

    torch.manual_seed(0)
    original = own_networks.three().eval()
    torch.save(original.state_dict(), tmp_path / "weights.pt")
    words = ["--factory", "own_networks:three", "--weights", tmp_path / "weights.pt", "--classes", classes, *SIZE]
    run = tmp_path / "run"
    code, said, errors = segdeploy("import", *words, *["--align-corners"] * align, "-o", run)
    assert (code, errors) == (0, "")
    assert said == f"to open the run: export {TRUSTED}=own_networks:three\nrun: {run}\n"
    spec = open_model(run).spec
    assert spec.encoder.config == {"function": "own_networks:three", "channels": 3, "stride": 4}
    assert spec.head.kind == "none"
    picture = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        small = original(normalised(picture))["out"]
    expected = torch.nn.functional.interpolate(small, size=(64, 96), mode="bilinear", align_corners=align).argmax(1)
    with open_runner(open_model(run), "torch") as runner:
        assert (runner.run(picture) == expected.numpy()).mean() >= 0.999
    if align:
        return
    assert segdeploy("export", run, "-o", tmp_path / "bundle", "--verify", data)[0] == 0
    monkeypatch.setenv(TRUSTED, "")
    # An ONNX file needs no code of the user's; the weights do.
    words = ("-o", tmp_path / "masks", "--backend", "onnxruntime")
    assert segdeploy("predict", tmp_path / "bundle", data / "images", *words)[0] == 0
    code, _, errors = segdeploy("evaluate", run, "--dataset", data)
    assert code == 2
    assert f"if you trust it: export {TRUSTED}=own_networks:three" in errors


@pytest.mark.parametrize(
    ("name", "key", "prefix"),
    [
        ("last.pt", None, ""),
        ("last.pth", "model", "module."),  # torchvision's references
        ("last.ckpt", "state_dict", "net."),  # Lightning
        ("best.pth.tar", "state_dict", "module._orig_mod."),  # timm, in several processes and compiled
    ],
)
def test_weights_in_trainers_checkpoints(segdeploy, networks, classes, tmp_path, name, key, prefix):
    import own_networks
    from safetensors.torch import load_file

    original = own_networks.three()
    state = {prefix + name: tensor for name, tensor in original.state_dict().items()}
    if name == "last.ckpt":
        state = {"loss.weight": torch.ones(3)} | state
    torch.save({"epoch": 3, key: state} if key else state, tmp_path / name)
    words = ("--factory", "own_networks:three", "--weights", tmp_path / name, "--classes", classes, *SIZE)
    code, said, _ = segdeploy("import", *words, "-o", tmp_path / "run")
    assert code == 0
    assert (f"note: the weights' names begin with {prefix!r}, which is left out" in said) == bool(prefix)
    assert ("note: left out: 1 tensor(s) such as loss.weight" in said) == (name == "last.ckpt")
    weights = load_file(open_model(tmp_path / "run").path / "model_weights.safetensors")
    for name, tensor in original.state_dict().items():
        assert torch.equal(weights[f"encoder.network.{name}"], tensor)


def test_weights_that_are_no_state_dict(segdeploy, networks, classes, tmp_path):
    import own_networks

    words = ("--factory", "own_networks:three", "--classes", classes, *SIZE, "-o", tmp_path / "run", "--weights")
    for held, message in (
        (own_networks.three(), "expected tensors by name, and nothing that only running code can read; .*state_dict"),
        ({"epoch": 3, "optimizer": {}}, "expected tensors by name .*, found a dict of epoch, optimizer"),
        ([torch.zeros(3)], "expected tensors by name .*, found list"),
        ([], "cannot be read as weights"),
        ({}, "expected tensors by name .*, found dict"),
        ({"state_dict": {"a": torch.ones(1), "b": None}}, "expected tensors by name .*, found NoneType under 'b'"),
        ({0: torch.ones(1)}, "expected tensors by name .*, found Tensor under 0"),
    ):
        torch.save(held, tmp_path / "x.pt")
        if held == []:
            (tmp_path / "x.pt").write_bytes(b"<html>")
        code, _, errors = segdeploy("import", *words, tmp_path / "x.pt")
        assert code == 2
        assert re.search(rf"x.pt: {message}", errors), errors
        assert len(errors.strip().splitlines()) == 1


def test_one_logit_of_the_users_own(segdeploy, networks, tmp_path):
    (tmp_path / "two.yaml").write_text("classes: [background, crack]\n")
    words = ("--factory", "own_networks:one", "--classes", tmp_path / "two.yaml", *SIZE)
    code, said, _ = segdeploy("import", *words, "-o", tmp_path / "run")
    assert code == 0
    assert "note: the weights are those that own_networks:one gives" in said
    assert "note: the one logit of the original becomes two classes" in said
    picture = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    opened = open_model(tmp_path / "run")
    import own_networks
    from safetensors.torch import load_file

    original = own_networks.one().eval()
    state = load_file(opened.path / "model_weights.safetensors")
    prefix = "encoder.network."
    original.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    with torch.inference_mode():
        logit = torch.nn.functional.interpolate(original(normalised(picture))["out"], size=(64, 96), mode="bilinear")
    with open_runner(opened, "torch") as runner:
        assert (runner.run(picture)[0] == (logit[0, 0] > 0).numpy()).mean() >= 0.999


REFUSED = [
    ((), "expected a SOURCE folder or --factory"),
    (("FOLDER", "--factory", "own_networks:three"), "expected a SOURCE folder or --factory, got both"),
    (("FOLDER",), "does not tell the size of its images; give --height and --width"),
    (("FOLDER", "--height", 64), "expected --height and --width together"),
    (("FOLDER", *SIZE, "--weights", "w.pt"), "--weights and --align-corners go with --factory"),
    (("FOLDER", *SIZE, "--classes", "CLASSES"), "classes.yaml: expected 2 classes, as the network has, found 3"),
    (("FOLDER", *SIZE, "--mean", "1,2"), "expected three numbers with commas between"),
    (("FOLDER", *SIZE, "--mean", "1,2,3"), "--mean: Input should be less than or equal to 1, found 2"),
    (("FOLDER", *SIZE, "-o", "FOLDER"), "is there already; choose another -o"),
    (("NOWHERE", *SIZE), "found no such folder"),
    (("EMPTY", *SIZE), "found no config.json in it; other networks come in by --factory"),
    (("BERT", *SIZE), "config.json: expected model_type 'segformer' .* found model_type 'bert'"),
    (("LIST", *SIZE), "config.json: expected a JSON object, found list"),
    (("BROKEN", *SIZE), "config.json: not a JSON file"),
    (("DEEP", *SIZE), "config.json: not a JSON file of a model: nested too deeply"),
    (("FOLDER", *SIZE, "-o", "file.txt/run"), "file.txt/run: cannot be written: .*file.txt is no folder"),
    (("NOWHERE", *SIZE, "-o", "file.txt/run"), "file.txt/run: cannot be written: .*file.txt is no folder"),
    (("--factory", "own_networks:three", *SIZE), "--factory: expected --height, --width and --classes"),
    (("--factory", "own_networks:one", *SIZE, "--classes", "CLASSES"), "expected 2 classes, .* found 3"),
    (("--factory", "own_networks:text", *SIZE, "--classes", "CLASSES"), "to make a torch.nn.Module, found str"),
    (("--factory", "own_networks:picky", *SIZE, "--classes", "CLASSES"), "the network cannot take a 96x64 image"),
    (
        ("--factory", "own_networks:wide", *SIZE, "--classes", "CLASSES"),
        r"of 1 to 255 classes, found .* \(1, 300, 64, 96",
    ),
    (
        ("--factory", "own_networks:attribute", *SIZE, "--classes", "CLASSES"),
        "cannot take a 96x64 image: no such thing$",
    ),
    (
        ("--factory", "own_networks:key", *SIZE, "--classes", "CLASSES"),
        "the network cannot take a 96x64 image: 'no such",
    ),
    (("--factory", "own_networks", *SIZE, "--classes", "CLASSES"), "--factory: encoder factory: function: "),
    (("--factory", "os:getcwd", *SIZE, "--classes", "CLASSES"), "to make a torch.nn.Module, found str"),
    (
        ("--factory", "own_networks:three", *SIZE, "--classes", "CLASSES", "--weights", "FOLDER"),
        "not those of this network",
    ),
    (
        ("--factory", "own_networks:three", *SIZE, "--classes", "CLASSES", "--weights", "w.pt"),
        "w.pt: no such file or folder",
    ),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    segdeploy, networks, classes, unet, tmp_path, words, message, monkeypatch
):
    for name, content in (
        ("BERT", '{"model_type": "bert"}'),
        ("LIST", "[]"),
        ("BROKEN", "{"),
        ("EMPTY", None),
        ("DEEP", "[" * 200_000),
    ):
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / "config.json").write_text(content)
    places = {"FOLDER": unet, "CLASSES": classes} | {
        n: tmp_path / n for n in ("BERT", "LIST", "BROKEN", "EMPTY", "NOWHERE", "DEEP")
    }
    (tmp_path / "file.txt").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, said, errors = segdeploy("import", *(places.get(w, w) for w in words))
    assert code == 2
    assert re.search(message, errors), errors
    assert said == ""
    assert len(errors.strip().splitlines()) == 1 or "Usage:" in errors
    assert sorted(p for p in tmp_path.rglob("*") if "__pycache__" not in p.parts) == [
        p for p in before if "__pycache__" not in p.parts
    ]
