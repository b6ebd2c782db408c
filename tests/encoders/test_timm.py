"""Which timm models serve, and that pretrained weights are really loaded: from a file and from the hub's cache."""

import os
import socket
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from segdeploy.encoders import timm as plugin
from segdeploy.errors import ConfigError, MissingPartError

NAME = "mobilenetv3_small_050.lamb_in1k"


@pytest.fixture(scope="module")
def trained():
    """A whole classifier with weights unlike any fresh encoder's, as its author would publish it."""
    torch.manual_seed(7)
    model = timm.create_model(NAME, pretrained=False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    return model


def same_features(encoder, classifier):
    body = timm.create_model(NAME, pretrained=False, features_only=True)
    body.load_state_dict(classifier.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    encoder.eval()
    body.eval()
    with torch.no_grad():
        return all(torch.equal(a, b) for a, b in zip(encoder(image), body(image), strict=True))


def test_weights_from_a_local_file(trained, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, path)
    config = plugin.TimmConfig(model_name=NAME, weights=str(path))
    encoder = plugin.build(config)
    assert not same_features(encoder, trained)
    plugin.load_pretrained(encoder, config)
    assert same_features(encoder, trained)


def test_weights_from_the_hubs_cache(trained, tmp_path):
    """The cache's own layout: models--timm--NAME/{refs/main, snapshots/COMMIT/model.safetensors}; no network."""
    commit = "0" * 40
    repository = tmp_path / "hub" / f"models--timm--{NAME}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    tensors = {k: v.contiguous() for k, v in trained.state_dict().items()}
    save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
    code = f"""
import torch
from segdeploy.encoders import timm as plugin
config = plugin.TimmConfig(model_name={NAME!r})
encoder = plugin.build(config)
plugin.load_pretrained(encoder, config)
torch.save(encoder.body.state_dict(), {str(tmp_path / "loaded.pt")!r})
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = torch.load(tmp_path / "loaded.pt", weights_only=True)
    expected = trained.state_dict()
    assert loaded
    assert all(torch.equal(loaded[k], expected[k]) for k in loaded)


def test_offline_and_absent_is_one_line_that_says_what_to_set(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"""
input_features:
  - {{name: image, type: image, preprocessing: {{height: 64, width: 64}}, encoder: {{type: timm, model_name: {NAME}}}}}
output_features:
  - {{name: mask, type: image, preprocessing: {{num_classes: 7}}, decoder: {{type: fpn}}}}
""")
    from segdeploy.data.demo import generate

    table = generate(tmp_path / "data", count=20, size=(32, 32))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    words = ["train", "-c", config, "--dataset", table, "-o", tmp_path / "runs", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "segdeploy", *map(str, words)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    line = [text for text in done.stderr.splitlines() if text.startswith("segdeploy: ")]
    assert len(line) == 1
    assert NAME in line[0]
    assert "use_pretrained: false" in line[0]
    assert "weights: FILE.safetensors" in line[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "said"), [("none.safetensors", "no such file"), ("weights.pth", "can run code")])
def test_unusable_files_are_refused(tmp_path, name, said):
    if name.endswith(".pth"):
        (tmp_path / name).write_bytes(b"pickle")
    config = plugin.TimmConfig(model_name=NAME, weights=str(tmp_path / name))
    with pytest.raises(MissingPartError, match=said):
        plugin.load_pretrained(plugin.build(config), config)


def test_weights_of_another_model_are_refused(tmp_path):
    other = timm.create_model("resnet10t", pretrained=False)
    save_file({k: v.contiguous() for k, v in other.state_dict().items()}, tmp_path / "w.safetensors")
    config = plugin.TimmConfig(model_name=NAME, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(MissingPartError, match="could not be loaded"):
        plugin.load_pretrained(plugin.build(config), config)


def test_model_without_trained_weights():
    config = plugin.TimmConfig(model_name="resnet10t.nothing")
    with pytest.raises((MissingPartError, ConfigError)):
        plugin.load_pretrained(plugin.build(config), config)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mobilenetv3_larg_100", "has no model"),
        ("vit_tiny_patch16_224", "a pyramid with rising strides is needed"),
    ],
)
def test_models_that_cannot_serve(name, said):
    with pytest.raises(ConfigError, match=said):
        plugin.TimmEncoder(name)


@pytest.mark.parametrize("name", ["hf-hub:evil/resnet18", "hf_hub:resnet18", "evil/resnet18", "local-dir:resnet18"])
def test_no_name_reaches_beyond_timm(name, monkeypatch):
    """Also where the end of it is a model's name; a run of a stranger's must open no connection."""

    def connect(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    with pytest.raises(ConfigError, match=f"encoder.model_name: expected a name of timm's own, .* found '{name}'$"):
        plugin.TimmEncoder(name)


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_lite0", "swin_tiny_patch4_window7_224", "regnetx_002"])
def test_families_give_pyramids(name):
    encoder = plugin.TimmEncoder(name).eval()
    side = 224 if name.startswith("swin") else 64
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, side, side))
    for level, found in zip(encoder.features, maps, strict=True):
        assert tuple(found.shape) == (1, level.channels, side // level.stride, side // level.stride)


def test_normalisation_is_the_models_own():
    assert plugin.TimmEncoder("resnet10t").mean == (0.485, 0.456, 0.406)
    inception = plugin.TimmEncoder("tf_mobilenetv3_small_minimal_100.in1k")
    assert inception.mean == tuple(timm.get_pretrained_cfg("tf_mobilenetv3_small_minimal_100.in1k").mean)
    assert inception.mean != (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride_keeps_the_deepest_of_equal_strides(name, output_stride):
    """Against the encoder of segmentation_models_pytorch, whose last map is what DeepLab reads."""
    from segmentation_models_pytorch.encoders import get_encoder

    torch.manual_seed(0)
    reference = get_encoder(f"tu-{name}", weights=None, output_stride=output_stride).eval()
    encoder = plugin.build(plugin.TimmConfig(model_name=name, output_stride=output_stride)).eval()
    encoder.body.load_state_dict(reference.model.state_dict())
    strides = [f.stride for f in encoder.features]
    assert strides == [s for s in (2, 4, 8, 16) if s <= output_stride and s >= strides[0]]
    for size in [(64, 96), (65, 99)]:
        with torch.no_grad():
            image = torch.randn(2, 3, *size)
            maps, expected = encoder(image), reference(image)
        assert torch.equal(maps[-1], expected[-1])
        assert [m.shape[1] for m in maps] == [f.channels for f in encoder.features]
        for level, found in zip(encoder.features, maps, strict=True):
            for full, side in zip(size, found.shape[2:], strict=True):
                assert full // level.stride <= side <= -(-full // level.stride)


@pytest.mark.parametrize("name", ["caformer_s18", "hrnet_w18_small", "vit_tiny_patch16_224"])
def test_models_that_cannot_dilate_say_so(name):
    with pytest.raises(ConfigError, match=f"encoder.output_stride: found 16, but {name} cannot dilate"):
        plugin.TimmEncoder(name, 16)


def test_weights_reach_a_dilated_encoder(trained, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, path)
    config = plugin.TimmConfig(model_name=NAME, weights=str(path), output_stride=16)
    encoder = plugin.build(config)
    plugin.load_pretrained(encoder, config)
    loaded = encoder.body.state_dict()
    assert all(torch.equal(loaded[k], trained.state_dict()[k]) for k in loaded)


def test_out_indices_choose_levels():
    config = plugin.TimmConfig(model_name="mobilenetv3_small_050", use_pretrained=False, out_indices=(1, 2, 3))
    encoder = plugin.build(config).eval()
    whole = plugin.TimmEncoder("mobilenetv3_small_050").eval()
    assert encoder.features == whole.features[1:4]
    encoder.load_state_dict({k: v for k, v in whole.state_dict().items() if k in encoder.state_dict()})
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(encoder(image), whole(image)[1:4], strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("indices", [(0, 7), (2, 1)])
def test_out_indices_that_give_no_pyramid(indices):
    with pytest.raises(ConfigError, match=r"encoder.model_name: resnet10t gives"):
        plugin.TimmEncoder("resnet10t", out_indices=indices)
