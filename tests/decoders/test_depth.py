"""How many of the encoder's levels a decoder uses."""

import pytest
import torch

from segdeploy.decoders.fpn import FPN, FPNConfig
from segdeploy.decoders.unet import UNet, UNetConfig
from segdeploy.encoders.unet import UNetEncoder, UNetEncoderConfig
from segdeploy.errors import ConfigError
from segdeploy.plugin import FeatureMap

LEVELS = tuple(FeatureMap(channels=4 * s, stride=s) for s in (2, 4, 8, 16, 32))


def maps(height=64, width=96):
    return tuple(torch.randn(2, f.channels, height // f.stride, width // f.stride) for f in LEVELS)


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_unet_joins_the_finest_stages(stages):
    decoder = UNet(UNetConfig(channels=(16, 8), num_stages=stages), LEVELS).eval()
    given = list(maps())
    out = decoder(tuple(given))
    assert out.shape == (2, decoder.out.channels, 32, 48)
    for place in range(stages + 1, len(LEVELS)):
        given[place] = given[place] + 1  # what lies deeper has no say
    assert torch.equal(decoder(tuple(given)), out)
    given[stages] = given[stages] + 1
    assert not torch.equal(decoder(tuple(given)), out)


def test_unet_refuses_more_stages_than_there_are():
    with pytest.raises(ConfigError, match="num_stages is 5, but the encoder has 4 to join"):
        UNet(UNetConfig(num_stages=5), LEVELS)


@pytest.mark.parametrize("norm", ["batch", None])
def test_unet_with_and_without_normalisation(norm):
    decoder = UNet(UNetConfig(channels=(8,), conv_norm=norm), LEVELS)
    kinds = {type(m) for m in decoder.modules()}
    assert (torch.nn.BatchNorm2d in kinds) == (norm == "batch")
    assert all((m.bias is None) == (norm == "batch") for m in decoder.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize(("count", "used"), [(None, [1, 2, 3, 4]), (4, [1, 2, 3, 4]), (2, [1, 2])])
def test_fpn_levels(count, used):
    decoder = FPN(FPNConfig(num_channels=8, merge_channels=8, num_levels=count), LEVELS)
    assert decoder.levels == used
    assert decoder(maps()).shape == (2, 8, 16, 24)


def test_fpn_takes_what_there_is_and_says_so(caplog):
    caplog.set_level("INFO", logger="segdeploy")
    assert FPN(FPNConfig(num_levels=5), LEVELS).levels == [1, 2, 3, 4]
    assert caplog.messages == ["decoder fpn: the encoder has 4 levels for the 5 asked for"]


@pytest.mark.parametrize("stages", [2, 3, 4, 5])
def test_unet_encoder_and_decoder_of_every_depth(stages):
    encoder = UNetEncoder(UNetEncoderConfig(num_stages=stages, base_channels=4))
    assert [f.channels for f in encoder.features] == [4 << i for i in range(stages + 1)]
    decoder = UNet(UNetConfig(channels=(16, 8), num_stages=stages), encoder.features)
    assert decoder(encoder(torch.randn(1, 3, 64, 64))).shape == (1, 8, 64, 64)


def test_unet_encoder_is_64_to_1024_wide_by_default():
    assert [f.channels for f in UNetEncoder(UNetEncoderConfig()).features] == [64, 128, 256, 512, 1024]
