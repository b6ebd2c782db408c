"""Against segmentation_models_pytorch: the decoder alone, and a whole model whose weights move over by prefix."""

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch
from segdeploy_deeplabv3plus.decoder import DeepLabV3Plus, DeepLabV3PlusConfig
from segmentation_models_pytorch import DeepLabV3Plus as SmpModel
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder as SmpDecoder

from segdeploy.errors import ConfigError
from segdeploy.plugin import FeatureMap, registry

CHANNELS = (3, 8, 12, 16, 24, 40)


def levels(*strides):
    return tuple(FeatureMap(channels=8 + i, stride=s) for i, s in enumerate(strides))


def unlike_fresh(module):
    """Weights and running statistics that no fresh module has, so that a wrong or missing one shows."""
    with torch.no_grad():
        for name, x in (*module.named_parameters(), *module.named_buffers()):
            if x.ndim == 1 and x.is_floating_point():
                x.uniform_(0.5, 1.5) if "var" in name else x.add_(0.2 * torch.randn_like(x))
    return module.eval()


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_equals_the_reference_with_its_own_weights(separable, output_stride, rates):
    torch.manual_seed(0)
    reference = SmpDecoder(CHANNELS, 5, 32, rates, output_stride, separable, 0.5)
    unlike_fresh(reference)
    strides = [s for s in (2, 4, 8, 16) if s < output_stride]
    features = tuple(FeatureMap(channels=c, stride=s) for c, s in zip(CHANNELS[1:], strides, strict=False))
    features = (*features, FeatureMap(channels=CHANNELS[-1], stride=output_stride))
    config = DeepLabV3PlusConfig(channels=32, atrous_rates=rates, separable=separable, align_corners=True)
    decoder = DeepLabV3Plus(config, features).eval()
    decoder.load_state_dict(reference.state_dict())
    maps = tuple(torch.randn(2, f.channels, 96 // f.stride, 128 // f.stride) for f in features)
    # The reference reads the third and the last of six.
    six = [torch.empty(0), torch.empty(0), maps[1], torch.empty(0), torch.empty(0), maps[-1]]
    with torch.no_grad():
        torch.testing.assert_close(decoder(maps), reference(six), rtol=0, atol=1e-5)
    assert decoder.out == FeatureMap(channels=32, stride=4)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_a_whole_model_moves_over_by_prefix(output_stride):
    from segdeploy.model.segmenter import Segmenter
    from segdeploy.model.spec import Head

    torch.manual_seed(0)
    reference = SmpModel("tu-resnet10t", encoder_weights=None, encoder_output_stride=output_stride, classes=7)
    unlike_fresh(reference)
    timm = registry.encoder("timm")
    encoder = timm.build(timm.config(model_name="resnet10t", use_pretrained=False, output_stride=output_stride))
    config = DeepLabV3PlusConfig(atrous_rates=(12, 24, 36), dropout=0.5, align_corners=True)
    model = Segmenter(encoder, DeepLabV3Plus(config, encoder.features), 7, Head(align_corners=True)).eval()
    prefixes = {"encoder.model.": "encoder.body.", "segmentation_head.0.": "head.", "decoder.": "decoder."}
    renamed = {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in reference.state_dict().items()
        for theirs, ours in prefixes.items()
        if name.startswith(theirs)
    }
    model.load_state_dict(renamed)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(image), reference(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strides", [(4,), (1, 2), (2, 4)])
def test_levels_that_cannot_serve_are_refused(strides):
    with pytest.raises(
        ConfigError, match=rf"needs a level of stride 4 .* the encoder gives {', '.join(map(str, strides))}"
    ):
        DeepLabV3Plus(DeepLabV3PlusConfig(), levels(*strides))


def test_the_skip_is_the_finest_level_of_stride_4_or_above():
    torch.manual_seed(0)
    decoder = DeepLabV3Plus(DeepLabV3PlusConfig(channels=16), levels(2, 8, 16, 64)).eval()
    maps = [torch.randn(1, f.channels, -(-70 // f.stride), -(-99 // f.stride)) for f in levels(2, 8, 16, 64)]
    assert decoder.out.stride == 8
    with torch.no_grad():
        before = decoder(tuple(maps))
        assert before.shape == (1, 16, 9, 13)
        for i, changes in enumerate([False, True, False, True]):
            moved = list(maps)
            moved[i] = moved[i] + 1
            assert torch.equal(decoder(tuple(moved)), before) is not changes


def test_one_image_at_a_time_cannot_train_it():
    decoder = DeepLabV3Plus(DeepLabV3PlusConfig(channels=8), levels(4, 16))
    maps = (torch.randn(1, 8, 8, 8), torch.randn(1, 9, 2, 2))
    with pytest.raises(ConfigError, match=r"set trainer\.batch_size to 2 or more"):
        decoder.train()(maps)
    assert decoder.eval()(maps).shape == (1, 8, 8, 8)


def test_every_key_reaches_the_network():
    def built(**keys):
        config = DeepLabV3PlusConfig.model_validate_json(json.dumps({"channels": 8, **keys}))
        return DeepLabV3Plus(config, levels(4, 16))

    def weights(module):
        return {name: tuple(x.shape) for name, x in module.state_dict().items()}

    plain = built()
    for keys in ({"channels": 16}, {"atrous_rates": [2, 3]}, {"separable": False}, {"skip_channels": 12}):
        assert weights(built(**keys)) != weights(plain)
    assert built(dropout=0.25).aspp[0].project[3].p == 0.25
    rates = [conv[0][0].dilation for conv in built(atrous_rates=[2, 5]).aspp[0].convs[1:3]]
    assert rates == [(2, 2), (5, 5)]
    torch.manual_seed(0)
    maps = (torch.randn(1, 8, 9, 11), torch.randn(1, 9, 3, 3))
    other = built(align_corners=True).eval()
    other.load_state_dict(plain.eval().state_dict())
    with torch.no_grad():
        assert not torch.equal(plain(maps), other(maps))


@pytest.mark.parametrize("align_corners", [False, True])
def test_free_height_and_width_in_onnx(align_corners, tmp_path):
    torch.manual_seed(0)
    features = levels(4, 16)
    config = DeepLabV3PlusConfig(channels=8, atrous_rates=(2, 4), align_corners=align_corners)
    decoder = unlike_fresh(DeepLabV3Plus(config, features))

    def maps(height, width):
        return tuple(torch.randn(2, f.channels, -(-height // f.stride), -(-width // f.stride)) for f in features)

    # Inputs of their own for each level: the exporter must not learn that one is four times the other.
    free = tuple({0: "n", 2: f"h{i}", 3: f"w{i}"} for i in range(2))
    path = tmp_path / "decoder.onnx"
    torch.onnx.export(
        decoder,
        (maps(80, 112),),
        path,
        input_names=["fine", "coarse"],
        dynamic_shapes=(free,),
        dynamo=True,
        verbose=False,
    )
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(80, 112), (64, 64), (99, 33), (16, 16)]:
        fine, coarse = maps(*size)
        found = session.run(None, {"fine": fine.numpy(), "coarse": coarse.numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(found, decoder((fine, coarse)).numpy(), rtol=1e-4, atol=1e-5)
