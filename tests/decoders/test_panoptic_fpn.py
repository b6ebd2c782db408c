"""The semantic branch of Panoptic FPN."""

import onnxruntime as ort
import pytest
import torch
from pydantic import ValidationError
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from torch import nn

from segdeploy.decoders.panoptic_fpn import PanopticFPN, PanopticFPNConfig
from segdeploy.errors import ConfigError
from segdeploy.plugin import FeatureMap

LEVELS = tuple(FeatureMap(channels=4 + s, stride=s) for s in (2, 4, 8, 16, 32))


def maps(height, width, batch=2):
    return tuple(torch.randn(batch, f.channels, -(-height // f.stride), -(-width // f.stride)) for f in LEVELS)


@pytest.mark.parametrize(("policy", "mode"), [("add", "nearest"), ("cat", "bilinear")])
def test_equals_the_reference_with_its_own_weights(policy, mode):
    torch.manual_seed(0)
    channels = [3, *(f.channels for f in LEVELS)]
    reference = FPNDecoder(channels, 5, 24, 32, 0.2, policy, mode).eval()
    config = PanopticFPNConfig(
        num_channels=24, merge_channels=32, merge_policy=policy, upsample_mode=mode, align_corners=True
    )
    decoder = PanopticFPN(config, LEVELS).eval()
    # Convolutions and norms of both in the order of the levels, fine to coarse.
    lateral = [reference.p2.skip_conv, reference.p3.skip_conv, reference.p4.skip_conv, reference.p5]
    for mine, theirs in zip(decoder.lateral, lateral, strict=True):
        mine.load_state_dict(theirs.state_dict())
    for mine, theirs in zip(decoder.branches, reversed(reference.seg_blocks), strict=True):
        blocks = [b.block for b in theirs.block]
        assert len(mine) == len(blocks)
        for ours, block in zip(mine, blocks, strict=True):
            nn.init.normal_(block[1].weight)
            ours.load_state_dict(block.state_dict())
    given = maps(64, 96)
    with torch.no_grad():
        torch.testing.assert_close(decoder(given), reference([torch.empty(0), *given]), rtol=0, atol=1e-5)
    assert decoder.out == FeatureMap(channels=32 if policy == "add" else 128, stride=4)


@pytest.mark.parametrize("min_stride", [2, 4])
def test_convolutions_per_level_and_the_finest_size(min_stride):
    decoder = PanopticFPN(PanopticFPNConfig(num_channels=8, merge_channels=32, min_stride=min_stride), LEVELS).eval()
    used = [f for f in LEVELS if f.stride >= min_stride]
    steps = [max(1, (f.stride // min_stride).bit_length() - 1) for f in used]
    assert [len(b) for b in decoder.branches] == steps
    assert all(m.num_groups == 32 for m in decoder.modules() if isinstance(m, nn.GroupNorm))
    for height, width in [(64, 96), (99, 70), (33, 47)]:
        out = decoder(maps(height, width))
        assert out.shape == (2, 32, -(-height // min_stride), -(-width // min_stride))
        assert torch.isfinite(out).all()


def test_levels_below_the_stride_have_no_say():
    decoder = PanopticFPN(PanopticFPNConfig(num_channels=8, merge_channels=32), LEVELS).eval()
    given = list(maps(64, 64))
    before = decoder(tuple(given))
    for i, matters in enumerate([False, True, True, True, True]):
        moved = list(given)
        moved[i] = moved[i] + torch.randn_like(moved[i])
        assert torch.equal(decoder(tuple(moved)), before) is not matters


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="decoder panoptic_fpn: needs 2 or more levels of stride 4"):
        PanopticFPN(PanopticFPNConfig(), LEVELS[:2])
    with pytest.raises(ValidationError, match="multiple of 32"):
        PanopticFPNConfig(merge_channels=48)


@pytest.mark.parametrize("align_corners", [False, True])
def test_free_height_and_width_in_onnx(align_corners, tmp_path):
    torch.manual_seed(0)
    config = PanopticFPNConfig(num_channels=8, merge_channels=32, align_corners=align_corners)
    decoder = PanopticFPN(config, LEVELS).eval()
    free = tuple({0: "n", 2: f"h{i}", 3: f"w{i}"} for i in range(len(LEVELS)))
    names = [f"level{i}" for i in range(len(LEVELS))]
    file = tmp_path / "decoder.onnx"
    torch.onnx.export(
        decoder, (maps(80, 112),), file, input_names=names, dynamic_shapes=(free,), dynamo=True, verbose=False
    )
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    known = {i.name for i in session.get_inputs()}
    for size in [(64, 64), (99, 33), (128, 160)]:
        given = maps(*size, batch=1)
        feed = {n: x.numpy() for n, x in zip(names, given, strict=True) if n in known}
        found = torch.from_numpy(session.run(None, feed)[0])
        with torch.no_grad():
            torch.testing.assert_close(found, decoder(given), rtol=1e-4, atol=1e-4)
