"""Swin at any size is torchvision's Swin, and timm's own at the training size; MaxViT says which sizes it takes."""

import re

import pytest
import timm
import torch
from torchvision.models import swin_transformer

from segdeploy.encoders.timm import TimmEncoder
from segdeploy.errors import ConfigError

NAME = "swin_tiny_patch4_window7_224"


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = TimmEncoder(NAME).eval()
    with torch.no_grad():  # so that which tokens attend to which, and from where, tells
        for name, p in encoder.named_parameters():
            if "qkv.weight" in name or "relative_position_bias_table" in name:
                p.mul_(20)
    return encoder


@pytest.fixture(scope="module")
def torchvisions(encoder):
    """Torchvision's model with the encoder's weights, in its own order of parameters."""
    model = swin_transformer.swin_t(weights=None).eval()
    own = encoder.body.state_dict()
    for theirs, value in model.state_dict().items():
        if theirs.startswith(("norm.", "head.")) or "relative_position_index" in theirs:
            continue
        value.copy_(own[timms_name(theirs)])
    return model


def timms_name(name):
    """`features` holds patch embedding, stage, merging, stage, ...; timm puts a merging into the stage after it."""
    first, rest = re.fullmatch(r"features\.(\d)\.(.*)", name).groups()
    place = int(first)
    if place == 0:
        return "patch_embed." + {"0": "proj.", "2": "norm."}[rest[0]] + rest[2:]
    stage = f"layers_{place // 2}."
    if place % 2 == 0:
        return f"{stage}downsample.{rest}"
    return f"{stage}blocks.{rest}".replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")


@pytest.mark.parametrize("size", [(224, 224), (256, 256), (68, 100), (448, 32)])
def test_swin_is_torchvisions_at_any_size(encoder, torchvisions, size):
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = encoder(image)
        x = image
        for place, layer in enumerate(torchvisions.features):
            x = layer(x)
            if place % 2 == 1:
                torch.testing.assert_close(maps[place // 2], x.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [NAME, "swinv2_tiny_window8_256"])
def test_at_the_training_size_it_is_timms_own(name):
    encoder = TimmEncoder(name).eval()
    body = timm.create_model(name, features_only=True).eval()
    body.load_state_dict(encoder.body.state_dict())
    side = body.pretrained_cfg["input_size"][-1]
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        for found, expected in zip(encoder(image), body(image), strict=True):
            assert torch.equal(found, expected.permute(0, 3, 1, 2))


def test_swin_pads_odd_sizes_at_the_right_and_at_the_bottom(encoder):
    image = torch.randn(1, 3, 65, 97)
    padded = torch.zeros(1, 3, 68, 100)
    padded[:, :, :65, :97] = image
    with torch.no_grad():
        for found, expected in zip(encoder(image), encoder(padded), strict=True):
            assert torch.equal(found, expected)


def test_channels_are_not_mistaken_for_rows():
    """At 384 pixels Swin's first map has as many rows as channels."""
    encoder = TimmEncoder(NAME).eval()
    with torch.no_grad():
        assert tuple(encoder(torch.randn(1, 3, 384, 32))[0].shape) == (1, 96, 96, 8)


@pytest.mark.parametrize(
    ("size", "near"), [((256, 256), "224x224, 448x448"), ((100, 448), "448x224"), ((500, 300), "224x448, 448x672")]
)
def test_maxvit_names_the_next_sizes(size, near):
    encoder = TimmEncoder("maxvit_tiny_tf_224")
    with pytest.raises(ConfigError, match=f"multiples of 224; the next sizes that work: {near}$"):
        encoder(torch.zeros(1, 3, *size))
