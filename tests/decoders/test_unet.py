"""U-Net's decoder down to stride 1."""

import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F

from segdeploy.decoders.unet import UNet, UNetConfig
from segdeploy.errors import ConfigError
from segdeploy.plugin import FeatureMap


def levels(*strides):
    return tuple(FeatureMap(channels=4 + i, stride=s) for i, s in enumerate(strides))


def maps(features, height, width):
    return tuple(torch.randn(2, f.channels, -(-height // f.stride), -(-width // f.stride)) for f in features)


@pytest.mark.parametrize(("strides", "further"), [((1, 2, 4), 0), ((2, 4, 8), 1), ((4, 8, 16, 32), 2)])
def test_full_size_goes_on_without_skips(strides, further):
    features = levels(*strides)
    decoder = UNet(UNetConfig(channels=(16, 8), full_size=True), features).eval()
    assert len(decoder.blocks) == len(strides) - 1 + further
    assert decoder.out == FeatureMap(channels=8, stride=1)
    finest = strides[0]
    for height, width in [(64, 96), (33, 47)]:
        out = decoder(maps(features, height, width))
        assert out.shape == (2, 8, -(-height // finest) * finest, -(-width // finest) * finest)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_steps_are_upsample_join_convolve(mode):
    features = levels(2, 4)
    decoder = UNet(UNetConfig(channels=(16, 8), full_size=True, upsample_mode=mode), features).eval()
    fine, coarse = maps(features, 12, 20)
    first, second = decoder.blocks
    x = first(torch.cat([F.interpolate(coarse, scale_factor=2, mode=mode), fine], 1))
    assert torch.equal(decoder((fine, coarse)), second(F.interpolate(x, scale_factor=2, mode=mode)))


def test_strides_that_doubling_does_not_reach():
    with pytest.raises(ConfigError, match=r"full_size needs a finest stride of 1, 2, 4, .* the encoder has 3"):
        UNet(UNetConfig(full_size=True), levels(3, 6))


def test_full_size_with_free_height_and_width_in_onnx(tmp_path):
    torch.manual_seed(0)
    features = levels(4, 8)
    decoder = UNet(UNetConfig(channels=(8,), full_size=True), features).eval()
    free = tuple({0: "n", 2: f"h{i}", 3: f"w{i}"} for i in range(2))
    file = tmp_path / "decoder.onnx"
    torch.onnx.export(
        decoder,
        (maps(features, 80, 112),),
        file,
        input_names=["fine", "coarse"],
        dynamic_shapes=(free,),
        dynamo=True,
        verbose=False,
    )
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in [(64, 64), (99, 33)]:
        fine, coarse = maps(features, *size)
        found = torch.from_numpy(session.run(None, {"fine": fine.numpy(), "coarse": coarse.numpy()})[0])
        with torch.no_grad():
            torch.testing.assert_close(found, decoder((fine, coarse)), rtol=1e-4, atol=1e-4)
