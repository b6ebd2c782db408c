"""DDRNet against the authors' network restated, the paper's counts, and sizes of every kind."""

import json
import runpy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file
from segdeploy_realtime.ddrnet.decoder import DAPPM, DDRNetDecoder, DDRNetDecoderConfig
from segdeploy_realtime.ddrnet.encoder import DDRNet, DDRNetConfig, load_pretrained
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.model.segmenter import Segmenter
from segdeploy.plugin import Auxiliary, FeatureMap, registry

Official = runpy.run_path(str(Path(__file__).parent / "official.py"))["Official"]
HEADS = {"23_slim": None, "23": None, "39": 256}


def unlike_fresh(module):
    """Weights and running statistics that no fresh module has, so that a wrong or missing one shows."""
    with torch.no_grad():
        for name, x in (*module.named_parameters(), *module.named_buffers()):
            if x.ndim == 1 and x.is_floating_point():
                x.uniform_(0.5, 1.5) if "var" in name else x.add_(0.2 * torch.randn_like(x))
    return module.eval()


def network(variant="23_slim", classes=7, **keys):
    encoder = DDRNet(DDRNetConfig(variant=variant, **keys))
    decoder = DDRNetDecoder(DDRNetDecoderConfig(head_channels=HEADS[variant]), encoder.features)
    return Segmenter(encoder, decoder, classes)


def take_heads(model, official):
    """The weights that the encoder's `weights` leaves out: decoder, class layer, auxiliary head."""
    own, given = model.state_dict(), official.state_dict()
    for name in own:
        there = name
        if name.startswith("decoder.context."):
            part, n, rest = name.removeprefix("decoder.context.").split(".", 2)
            pooled = part == "scales" and n != "0"  # there the pool is a module of the sequence
            if pooled:
                index, leaf = rest.split(".")
                rest = f"{int(index) + 1}.{leaf}"
            there = {"scales": f"spp.scale{n}.{rest}", "process": f"spp.process{int(n) + 1}.{rest}"}.get(
                part, f"spp.{part}.{n}.{rest}"
            )
        for ours, theirs in {
            "decoder.head.": "final_layer.",
            "head.": "final_layer.conv2.",
            "encoder.auxiliary.": "seghead_extra.",
            "aux_heads.0.": "seghead_extra.conv2.",
        }.items():
            if name.startswith(ours):
                there = theirs + name.removeprefix(ours)
        if there != name:
            own[name] = given[there]
    model.load_state_dict(own)


@pytest.mark.parametrize("variant", ["23_slim", "39"])  # 23 is 23_slim, twice as wide
def test_equals_the_authors_network_with_its_own_weights(variant, tmp_path):
    torch.manual_seed(0)
    official = unlike_fresh(Official(variant, 7))
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {f"module.{name}": x for name, x in official.state_dict().items()}}, path)
    model = network(variant).eval()
    load_pretrained(model.encoder, DDRNetConfig(variant=variant, weights=str(path)))
    take_heads(model, official)
    image = torch.randn(2, 3, 72, 136)
    with torch.no_grad():
        expected, extra = official(image)
        maps, (middle,) = model.encoder.forward_aux(image)
        found = model.head(model.decoder(maps))
        assert found.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.aux_heads[0](middle), extra, rtol=1e-4, atol=1e-4)
        for alone, together in zip(model.encoder(image), maps, strict=True):
            assert torch.equal(alone, together)


@pytest.mark.parametrize(
    ("variant", "millions", "billions"), [("23_slim", 5.7, 36.3), ("23", 20.1, 143.1), ("39", 32.4, 281.1)]
)
def test_parameters_and_multiply_adds(variant, millions, billions):
    """19 classes, no auxiliary head; multiply-adds of the convolutions at 2048 x 1024, as torch counts them.

    Those of 23_slim are the paper's; those of the larger ones are what was counted.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        model = network(variant, classes=19, aux_weight=0).eval()
        model(torch.empty(1, 3, 1024, 2048))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
    assert round(counted.get_total_flops() / 2 / 1e9, 1) == billions


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (65, 130)])
def test_any_size_runs(size):
    model = network().eval()
    with torch.no_grad():
        image = torch.randn(2, 3, *size)
        maps = model.encoder(image)
        logits = model(image)
    for level, found in zip(model.encoder.features, maps, strict=True):
        assert tuple(found.shape) == (2, level.channels, *(-(-side // level.stride) for side in size))
    assert logits.shape == (2, 7, *size)
    assert torch.isfinite(logits).all()


def test_small_maps_train():
    loss = network().train()(torch.randn(2, 3, 16, 16)).square().mean()
    loss.backward()
    assert torch.isfinite(loss)


def test_one_image_at_a_time_cannot_train_it():
    with pytest.raises(ConfigError, match=r"set trainer\.batch_size to 2 or more"):
        network().train()(torch.randn(1, 3, 128, 128))


def test_the_auxiliary_map_teaches_and_is_gone_afterwards():
    torch.manual_seed(0)
    model = network(aux_weight=0.25).train()
    assert model.encoder.aux == (Auxiliary(channels=64, stride=8, weight=0.25),)
    image = torch.randn(2, 3, 64, 64)
    _, ((weight, extra),) = model.forward_aux(image)
    assert weight == 0.25
    assert extra.shape == (2, 7, 64, 64)
    extra.square().mean().backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in taught if name.startswith("encoder.auxiliary.")}
    assert not {name for name in taught if name.startswith(("decoder.", "head.", "encoder.backbone.fourth"))}
    model.forward_aux(image)[0].square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    plain = network(aux_weight=0)
    assert plain.encoder.aux == ()
    assert not [name for name in plain.state_dict() if "aux" in name]
    assert plain.encoder.eval().forward_aux(image)[1] == ()
    # A training may start from a network with the second loss and go on without it.
    plain.encoder.load_state_dict(model.encoder.state_dict())
    assert all(torch.equal(t, model.encoder.state_dict()[name]) for name, t in plain.encoder.state_dict().items())


def test_pooling_counts_its_padding():
    """As the authors' does: near the border averages are smaller than the values."""
    pool = DAPPM(1, 8, 8).pools[0]
    assert pool(torch.ones(1, 1, 9, 9))[0, 0, 0, 0] == pytest.approx(9 / 25)


def test_the_decoder_on_another_encoder():
    timm = registry.encoder("timm")
    encoder = timm.build(timm.config(model_name="mobilenetv3_small_050", use_pretrained=False))
    decoder = DDRNetDecoder(DDRNetDecoderConfig(head_channels=24), encoder.features)
    assert decoder.out == FeatureMap(channels=24, stride=8)
    with torch.no_grad():
        assert Segmenter(encoder, decoder, 5).eval()(torch.randn(1, 3, 99, 70)).shape == (1, 5, 99, 70)


@pytest.mark.parametrize("strides", [(8,), (4, 16, 32), (2, 4, 8)])
def test_levels_that_cannot_serve_are_refused(strides):
    said = f"needs a level of stride 8 and a coarser one, the encoder gives {', '.join(map(str, strides))}"
    with pytest.raises(ConfigError, match=said):
        DDRNetDecoder(DDRNetDecoderConfig(), tuple(FeatureMap(channels=8, stride=s) for s in strides))


def test_every_key_of_the_decoder_reaches_the_network():
    features = (FeatureMap(channels=32, stride=8), FeatureMap(channels=64, stride=16))

    def shapes(**keys):
        built = DDRNetDecoder(DDRNetDecoderConfig.model_validate_json(json.dumps(keys)), features)
        return {name: tuple(x.shape) for name, x in built.state_dict().items()}

    assert shapes(head_channels=16) == shapes()
    assert shapes(head_channels=24) != shapes()
    assert shapes(context_channels=16) != shapes()


def test_free_height_and_width_in_onnx(tmp_path):
    torch.manual_seed(0)
    model = unlike_fresh(network())
    path = tmp_path / "model.onnx"
    free = {0: "n", 2: "height", 3: "width"}
    torch.onnx.export(
        model,
        (torch.randn(2, 3, 96, 128),),
        path,
        input_names=["x"],
        dynamic_shapes=(free,),
        dynamo=True,
        verbose=False,
    )
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(96, 128), (65, 131), (200, 40), (9, 7)]:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = model(image).numpy()
        np.testing.assert_allclose(session.run(None, {"x": image.numpy()})[0], expected, rtol=1e-3, atol=1e-3)


def test_a_safetensors_file_of_the_classifier_serves(tmp_path):
    """Without wrappers, without counters, and with a classifier's layers that the encoder has no use for."""
    torch.manual_seed(0)
    official = unlike_fresh(Official("23_slim"))
    tensors = {n: x for n, x in official.state_dict().items() if not n.endswith("num_batches_tracked")}
    save_file({**tensors, "linear.weight": torch.zeros(10, 4)}, tmp_path / "w.safetensors")
    encoder = DDRNet(DDRNetConfig())
    load_pretrained(encoder, DDRNetConfig(weights=str(tmp_path / "w.safetensors")))
    assert torch.equal(encoder.backbone.stem[3].weight, tensors["conv1.3.weight"])
    assert torch.equal(encoder.backbone.low.bn3.running_var, tensors["layer5.0.bn3.running_var"])


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ({"state_dict": {"layer1.weight": torch.zeros(1)}}, "conv1.0.weight should be of shape .* is missing"),
        ({"conv1.0.weight": torch.zeros(64, 3, 3, 3)}, r"not a checkpoint of DDRNet-23-slim: .* is \(64, 3, 3, 3\)"),
        ({"state_dict": Code()}, "expected a .safetensors file, or a .pth file with nothing but tensors"),
        ([torch.zeros(1)], "is missing"),
    ],
    ids=["absent", "of something else", "of another variant", "code", "a list"],
)
def test_files_that_do_not_serve_are_refused_in_one_line(content, said, tmp_path, capsys):
    path = tmp_path / "w.pth"
    if content is not None:
        torch.save(content, path)
    encoder = DDRNet(DDRNetConfig())
    before = {name: x.clone() for name, x in encoder.state_dict().items()}
    with pytest.raises(MissingPartError, match=said) as raised:
        load_pretrained(encoder, DDRNetConfig(weights=str(path)))
    assert str(raised.value).startswith("encoder.weights: ")
    assert "\n" not in str(raised.value)
    assert "this must not run" not in capsys.readouterr().out
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())


def test_convolutions_start_as_the_authors_do():
    torch.manual_seed(0)
    conv = DDRNet(DDRNetConfig()).backbone.fourth.low[1].conv1
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (conv.out_channels * 9)) ** 0.5, rel=0.02)
