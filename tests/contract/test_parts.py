"""One suite over every registered encoder and decoder, at small and odd sizes.

Encoders that differ by a line of a table alone meet one decoder, or none where they are but larger; all others,
third parties' among them, meet every decoder.
"""

import copy
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from segdeploy.checkpoint import load_weights, save_weights
from segdeploy.classes import ClassMap, default_colors
from segdeploy.encoders.family_table import FAMILIES
from segdeploy.encoders.mit_table import PRESETS
from segdeploy.encoders.vit_table import PLAIN_FAMILIES
from segdeploy.export.engine import build_engine
from segdeploy.export.onnx_graph import export_onnx
from segdeploy.model.segmenter import Deployed, Segmenter, build, features_of, out_of
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.plugin import registry

# What keeps a part small; a part without an entry is tested as its defaults make it.
SMALL = {
    "encoder timm": {"model_name": "mobilenetv3_small_050"},
    "encoder convnextv2": {"model_name": "convnextv2_atto"},
    "encoder unet": {"base_channels": 8},
    "encoder convnext": {"model_variant": "tiny"},
    "encoder resnet": {"model_variant": 18},
    "encoder regnet": {"model_variant": "x_400mf"},
    "encoder mit": {"hidden_sizes": [16, 32, 40, 48], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 6]},
    "encoder vit": {"model_name": "test_vit", "pyramid_channels": 32},
    "encoder dinov2": {"pretrained_model_name_or_path": "facebook/dinov2-small", "pyramid_channels": 32},
    "encoder clip": {"pyramid_channels": 32},
    "encoder siglip": {"pyramid_channels": 32},
    "decoder fpn": {"num_channels": 32, "merge_channels": 16},
    "decoder panoptic_fpn": {"num_channels": 32, "merge_channels": 32},
    "decoder segformer": {"hidden_size": 32},
    "decoder unet": {"channels": [32, 24, 16]},
}
# A whole network from elsewhere, which no other part can be joined to: tests/encoders/test_factory.py.
ENCODERS = sorted(set(registry.catalogue("encoder").plugins) - {"factory"})
DECODERS = sorted(set(registry.catalogue("decoder").plugins) - {"logits"})
ONE_DECODER = {"mit", *(family.name for family in (*FAMILIES, *PLAIN_FAMILIES))} - {"swin", "vit"}
DEEPER = set(PRESETS) - {
    "mit_b0"
}  # the blocks of mit_b0, only more and wider; tests/encoders/test_mit.py has the numbers
SIZES = [(64, 96), (65, 97), (99, 70)]
FIXED_SIZES = {"maxvit": [(224, 224)]}  # it takes multiples of 224 alone
NUM_CLASSES = 5


def sizes_of(encoder: str) -> list[tuple[int, int]]:
    return FIXED_SIZES.get(encoder, SIZES)


def part(kind: str, name: str) -> Part:
    config = dict(SMALL.get(f"{kind} {name}", {}))
    if "use_pretrained" in registry.catalogue(kind).plugins[name].config.model_fields:
        config["use_pretrained"] = False
    return Part(name=name, config=config, distribution="segdeploy", version="0")


def spec_of(encoder: str, decoder: str, size: tuple[int, int]) -> ModelSpec:
    names = tuple(f"class {i}" for i in range(NUM_CLASSES))
    return ModelSpec(
        encoder=part("encoder", encoder),
        decoder=part("decoder", decoder),
        classes=ClassMap(names=names, colors=default_colors(NUM_CLASSES)),
        preprocessing=Preprocessing(
            height=size[0], width=size[1], resize="stretch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
    )


class Pair:
    """An encoder with a decoder, made and exported once for all tests of the pair."""

    def __init__(self, encoder: str, decoder: str) -> None:
        self.sizes = sizes_of(encoder)
        self.size = self.sizes[-1]
        self.spec = spec_of(encoder, decoder, self.size)

    @functools.cached_property
    def _made(self) -> Segmenter:
        torch.manual_seed(0)
        model = build(self.spec)
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(4, 3, *self.sizes[0]))
            # Random weights give one class everywhere, or near-ties; centred and spread logits give real regions.
            logits = model.eval()(torch.randn(4, 3, *self.size))
            spread = logits.std((0, 2, 3), keepdim=True)
            model.head.weight.div_(spread.view(-1, 1, 1, 1))
            model.head.bias.sub_(logits.mean((0, 2, 3))).div_(spread.flatten())
        return model

    @property
    def model(self) -> Segmenter:
        """A copy for one test."""
        return copy.deepcopy(self._made)

    @functools.cached_property
    def graph(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(self._made, self.spec, path)
            return path.read_bytes()


PAIRS = [
    pytest.param((e, d), marks=pytest.mark.xdist_group(f"{e}-{d}"), id=f"{e}-{d}")
    for e in ENCODERS
    if e not in DEEPER
    for d in (["fpn"] if e in ONE_DECODER else DECODERS)
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request) -> Pair:
    return Pair(*request.param)


def test_something_is_registered():
    assert {"timm", "convnextv2"} <= set(ENCODERS)
    assert {"unet", "fpn", "segformer"} <= set(DECODERS)


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in ENCODERS for size in sizes_of(name)])
def test_declared_levels_are_the_real_ones(name, size):
    plugin = registry.encoder(name)
    config = plugin.config.model_validate_json(json.dumps(part("encoder", name).config))
    encoder = plugin.build(config).eval()
    with torch.no_grad():
        maps = encoder(torch.randn(2, 3, *size))
    declared = features_of(encoder)
    assert [f.stride for f in declared] == sorted({f.stride for f in declared})
    assert [tuple(m.shape[:2]) for m in maps] == [(2, f.channels) for f in declared]
    for level, found in zip(declared, maps, strict=True):
        # Strided convolutions round up, patch embeddings down.
        for full, side in zip(size, found.shape[2:], strict=True):
            assert full // level.stride <= side <= -(-full // level.stride)


def test_shapes_at_odd_sizes(pair):
    model = pair.model
    out = out_of(model.decoder)
    for size in pair.sizes:
        with torch.no_grad():
            image = torch.randn(2, 3, *size)
            maps = model.encoder(image)
            decoded = model.decoder(maps)
            logits = model(image)
        level = [f.stride for f in features_of(model.encoder)].index(out.stride)
        assert decoded.shape == (2, out.channels, *maps[level].shape[2:])
        assert logits.shape == (2, NUM_CLASSES, *size)
        assert torch.isfinite(logits).all()


def test_gradient_reaches_every_parameter(pair):
    model = pair.model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    # Several batches: a unit that is silent on one may speak on another (ReLU, drop-out), and a residual branch
    # that starts at zero (ResNet) speaks from the second step on.
    for _ in range(3):
        model(torch.randn(4, 3, *pair.sizes[0])).square().mean().backward()
        optimizer.step()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert silent == []
    flat = [n for n, p in model.named_parameters() if p.ndim > 1 and p.grad.abs().max() == 0]
    assert flat == []


def test_eval_is_deterministic_and_batch_independent(pair):
    model = pair.model
    image = torch.randn(3, 3, *pair.size)
    with torch.no_grad():
        together = model(image)
        assert torch.equal(together, model(image))
        alone = torch.cat([model(image[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_weights_round_trip(pair, tmp_path):
    model = pair.model
    save_weights(tmp_path / "w.safetensors", model, {"epoch": 3})
    other = build(pair.spec).eval()
    assert load_weights(tmp_path / "w.safetensors", other) == {"epoch": 3}
    image = torch.randn(1, 3, *pair.size)
    with torch.no_grad():
        assert torch.equal(model(image), other(image))


def test_exported_graph_gives_torchs_labels(pair):
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(pair.graph, settings, providers=["CPUExecutionProvider"])
    reference = Deployed(pair.model, pair.spec.preprocessing).eval()
    random = np.random.default_rng(0)
    for batch in (1, 3):
        image = random.integers(0, 256, (batch, *pair.size, 3), dtype=np.uint8)
        mask = session.run(["mask"], {"image": image})[0]
        with torch.inference_mode():
            expected = reference(torch.from_numpy(image)).numpy()
        assert mask.dtype == np.uint8
        assert mask.shape == (batch, *pair.size)
        assert len(np.unique(expected)) > 1
        assert (mask == expected).mean() >= 0.999


def test_no_resize_is_antialiased(pair):
    """TensorRT refuses it."""
    resizes = [node for node in onnx.load_from_string(pair.graph).graph.node if node.op_type == "Resize"]
    assert resizes
    assert not [n.name for n in resizes for a in n.attribute if a.name == "antialias" and a.i]


def test_tensorrt_for_rtx_parses_and_builds_it(pair, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    (tmp_path / "model.onnx").write_bytes(pair.graph)
    lock = build_engine(tmp_path / "model.onnx", pair.spec, tmp_path)
    assert lock["status"] == "built, not run on hardware"
    assert (tmp_path / "model.engine").stat().st_size > 10_000
