"""Two small models, exported for real, and a table of generated pictures."""

from pathlib import Path

import numpy as np
import pytest
from segdeploy.bundle import Bundle, BundleFile, artifact, write_bundle
from segdeploy.classes import ClassMap
from segdeploy.data.demo import CLASS_COLORS, CLASS_NAMES, generate
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

SIZE = (64, 96)


def part(name: str, **config: object) -> Part:
    return Part(name=name, config=config, distribution="segdeploy", version="0")


PARTS = {
    "convolutions": (
        part("timm", model_name="mobilenetv3_small_050", use_pretrained=False),
        part("fpn", num_channels=16, merge_channels=16),
    ),
    "layer norms": (
        part("convnextv2", model_name="convnextv2_atto", use_pretrained=False),
        part("segformer", hidden_size=32),
    ),
}


def make_bundle(folder: Path, encoder: Part, decoder: Part) -> Bundle:
    """A bundle of a model with random weights whose labels form regions of every class."""
    import torch
    from segdeploy.checkpoint import save_weights
    from segdeploy.export.onnx_graph import export_onnx
    from segdeploy.model.segmenter import build

    spec = ModelSpec(
        encoder=encoder,
        decoder=decoder,
        classes=ClassMap(names=CLASS_NAMES, colors=CLASS_COLORS),
        preprocessing=Preprocessing(
            height=SIZE[0], width=SIZE[1], resize="stretch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
    )
    torch.manual_seed(0)
    model = build(spec).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, *SIZE))
        # Random weights give one class everywhere, or near-ties; centred and spread logits give real regions.
        logits = model.eval()(torch.randn(4, 3, *SIZE))
        spread = logits.std((0, 2, 3))
        model.head.weight.div_(spread.view(-1, 1, 1, 1))
        model.head.bias.sub_(logits.mean((0, 2, 3))).div_(spread)
    export_onnx(model, spec, folder / "model.onnx")
    save_weights(folder / "weights.safetensors", model, {"epoch": 1})
    files = [("weights.safetensors", "weights"), ("model.onnx", "onnx")]
    listed = tuple(artifact(folder, name, kind, "fp32") for name, kind in files)
    return write_bundle(folder, BundleFile(spec=spec, artifacts=listed))


@pytest.fixture(scope="session", params=sorted(PARTS))
def any_bundle(request, tmp_path_factory) -> Bundle:
    """Each of the models in turn."""
    return made(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    """The faster of them."""
    return made("convolutions", tmp_path_factory)


_made: dict[str, Bundle] = {}


def made(name: str, tmp_path_factory) -> Bundle:
    if name not in _made:
        _made[name] = make_bundle(tmp_path_factory.mktemp("bundle"), *PARTS[name])
    return _made[name]


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """Six generated pictures of 80 x 112 and their masks."""
    return generate(tmp_path_factory.mktemp("pictures"), count=6, size=(80, 112))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
