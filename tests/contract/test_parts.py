"""One suite over every registered encoder and decoder, in all combinations, at small and odd sizes."""

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch

from segdeploy.checkpoint import load_weights, save_weights
from segdeploy.classes import ClassMap, default_colors
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
    "decoder fpn": {"num_channels": 32, "merge_channels": 16},
    "decoder segformer": {"hidden_size": 32},
    "decoder unet": {"channels": [32, 24, 16]},
}
ENCODERS = sorted(registry.catalogue("encoder").plugins)
DECODERS = sorted(registry.catalogue("decoder").plugins)
SIZES = [(64, 96), (65, 97), (99, 70)]
NUM_CLASSES = 5


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


def make(encoder: str, decoder: str, size: tuple[int, int] = SIZES[1]) -> tuple[ModelSpec, Segmenter]:
    torch.manual_seed(0)
    spec = spec_of(encoder, decoder, size)
    model = build(spec)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 96))
        # Random weights give one class everywhere, or near-ties; centred and spread logits give real regions.
        logits = model.eval()(torch.randn(4, 3, *size))
        spread = logits.std((0, 2, 3), keepdim=True)
        model.head.weight.div_(spread.view(-1, 1, 1, 1))
        model.head.bias.sub_(logits.mean((0, 2, 3))).div_(spread.flatten())
    return spec, model


pairs = pytest.mark.parametrize(
    ("encoder", "decoder"),
    [pytest.param(e, d, marks=pytest.mark.xdist_group(f"{e}-{d}")) for e in ENCODERS for d in DECODERS],
)


def test_something_is_registered():
    assert {"timm", "convnextv2"} <= set(ENCODERS)
    assert {"unet", "fpn", "segformer"} <= set(DECODERS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ENCODERS)
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


@pairs
def test_shapes_at_odd_sizes(encoder, decoder):
    _, model = make(encoder, decoder)
    out = out_of(model.decoder)
    for size in SIZES:
        with torch.no_grad():
            image = torch.randn(2, 3, *size)
            maps = model.encoder(image)
            decoded = model.decoder(maps)
            logits = model(image)
        level = [f.stride for f in features_of(model.encoder)].index(out.stride)
        assert decoded.shape == (2, out.channels, *maps[level].shape[2:])
        assert logits.shape == (2, NUM_CLASSES, *size)
        assert torch.isfinite(logits).all()


@pairs
def test_gradient_reaches_every_parameter(encoder, decoder):
    _, model = make(encoder, decoder)
    model.train()
    # Several batches: a unit that is silent on one may speak on another (ReLU, drop-out).
    for _ in range(3):
        model(torch.randn(4, 3, 64, 96)).square().mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert silent == []
    flat = [n for n, p in model.named_parameters() if p.ndim > 1 and p.grad.abs().max() == 0]
    assert flat == []


@pairs
def test_eval_is_deterministic_and_batch_independent(encoder, decoder):
    _, model = make(encoder, decoder)
    image = torch.randn(3, 3, *SIZES[1])
    with torch.no_grad():
        together = model(image)
        assert torch.equal(together, model(image))
        alone = torch.cat([model(image[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


@pairs
def test_weights_round_trip(encoder, decoder, tmp_path):
    spec, model = make(encoder, decoder)
    save_weights(tmp_path / "w.safetensors", model, {"epoch": 3})
    other = build(spec).eval()
    assert load_weights(tmp_path / "w.safetensors", other) == {"epoch": 3}
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(image), other(image))


@pairs
def test_exported_graph_gives_torchs_labels(encoder, decoder, tmp_path):
    spec, model = make(encoder, decoder)
    path = tmp_path / "model.onnx"
    export_onnx(model, spec, path)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    reference = Deployed(model, spec.preprocessing).eval()
    random = np.random.default_rng(0)
    for batch in (1, 3):
        image = random.integers(0, 256, (batch, *SIZES[1], 3), dtype=np.uint8)
        mask = session.run(["mask"], {"image": image})[0]
        with torch.inference_mode():
            expected = reference(torch.from_numpy(image)).numpy()
        assert mask.dtype == np.uint8
        assert mask.shape == (batch, *SIZES[1])
        assert len(np.unique(expected)) > 1
        assert (mask == expected).mean() >= 0.999


@pairs
def test_tensorrt_for_rtx_parses_and_builds_it(encoder, decoder, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    spec, model = make(encoder, decoder)
    export_onnx(model, spec, tmp_path / "model.onnx")
    lock = build_engine(tmp_path / "model.onnx", spec, tmp_path)
    assert lock["status"] == "built, not run on hardware"
    assert (tmp_path / "model.engine").stat().st_size > 10_000
