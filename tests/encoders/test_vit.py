"""Plain transformers: timm's own numbers at the native size, any other size, weights, patches of 14 pixels."""

import os
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_patch_embed

from segdeploy.encoders import vit as plugin
from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.plugin import registry

NAME = "test_vit.r160_in1k"
SMALL_14 = "vit_small_patch14_reg4_dinov2.lvd142m"


def encoder_of(name=NAME):
    torch.manual_seed(0)
    return plugin.PlainEncoder(name, 16).eval()


def timms(encoder, **options):
    model = timm.create_model(encoder.model_name, num_classes=0, **options).eval()
    model.load_state_dict(encoder.body.state_dict(), strict=False)
    return model


# With a class token; with pooling and no class token; pre-norm and quick GELU; attention pooling.
@pytest.mark.parametrize(
    "name",
    [NAME, "test_vit2", "test_vit3", "test_vit4", "vit_tiny_patch16_224", "vit_base_patch32_clip_quickgelu_224.openai"],
)
def test_tokens_are_timms_at_the_native_size(name):
    encoder = encoder_of(name)
    model = timms(encoder)
    image = torch.randn(2, 3, *model.patch_embed.img_size)
    with torch.no_grad():
        expected = model.forward_features(image)[:, model.num_prefix_tokens :]
        found = encoder.tokens(image)
    assert tuple(found.shape[2:]) == model.patch_embed.grid_size
    assert torch.equal(found.flatten(2).transpose(1, 2), expected)


@pytest.mark.parametrize("name", [NAME, "test_vit3", SMALL_14])
def test_tokens_are_timms_at_other_sizes(name):
    """Registers, class token and a table for 37x37 tokens among them."""
    encoder = encoder_of(name)
    side = 16 * encoder.body.patch_embed.grid_size[0]
    model = timms(encoder, patch_size=16, img_size=side, dynamic_img_size=True, dynamic_img_pad=True)
    with torch.no_grad():
        for size in [(65, 97), (96, 48), (20, 16)]:
            image = torch.randn(1, 3, *size)
            expected = model.forward_features(image)[:, model.num_prefix_tokens :]
            found = encoder.tokens(image).flatten(2).transpose(1, 2)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_maps_have_the_images_size():
    encoder = encoder_of()
    assert [f.stride for f in encoder.features] == [4, 8, 16, 32]
    with torch.no_grad():
        for size in [(65, 97), (256, 256), (16, 33)]:
            maps = encoder(torch.randn(1, 3, *size))
            expected = [(1, 16, -(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]
            assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_pyramid_from_any_patch_size(stride):
    from segdeploy.encoders.pyramid import SimpleFeaturePyramid

    pyramid = SimpleFeaturePyramid(32, stride, 24)
    maps = pyramid(torch.randn(1, 32, -(-65 // stride), -(-97 // stride)), (65, 97))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 17, 25), (1, 24, 9, 13), (1, 24, 5, 7), (1, 24, 3, 4)]


def test_patches_of_14_pixels_become_16():
    encoder = encoder_of(SMALL_14)
    native = timm.create_model(SMALL_14)
    assert encoder.patch == 16
    assert encoder.body.patch_embed.grid_size == native.patch_embed.grid_size == (37, 37)


@pytest.fixture(scope="module")
def trained_14(tmp_path_factory):
    """A whole DINOv2 checkpoint as its author would publish it, with random weights."""
    torch.manual_seed(7)
    model = timm.create_model(SMALL_14, pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "dinov2.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return model, path


def test_a_checkpoint_of_patch_14_loads_resampled(trained_14):
    model, path = trained_14
    dinov2 = registry.encoder("dinov2")
    config = dinov2.config(
        pretrained_model_name_or_path="facebook/dinov2-with-registers-small", weights=str(path), pyramid_channels=16
    )
    encoder = dinov2.build(config)
    dinov2.load_pretrained(encoder, config)
    kernels = resample_patch_embed(model.patch_embed.proj.weight, [16, 16])
    torch.testing.assert_close(encoder.body.patch_embed.proj.weight, kernels, rtol=0, atol=1e-6)
    assert torch.equal(encoder.body.pos_embed, model.pos_embed)  # its own grid, resampled in the forward pass
    assert torch.equal(encoder.body.blocks[3].mlp.fc1.weight, model.blocks[3].mlp.fc1.weight)


def test_weights_from_the_hubs_cache_offline(tmp_path):
    """The cache's own layout: models--timm--NAME/{refs/main, snapshots/COMMIT/model.safetensors}; no network."""
    torch.manual_seed(7)
    model = timm.create_model(NAME, pretrained=False)
    commit = "0" * 40
    repository = tmp_path / "hub" / f"models--timm--{NAME}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
    code = f"""
import torch
from segdeploy.encoders import vit as plugin
from segdeploy.encoders.pretrained import load_pretrained
config = plugin.VitSection(model_name={NAME!r})
encoder = plugin.PlainEncoder({NAME!r}, 16)
load_pretrained(encoder, config)
torch.save(encoder.body.state_dict(), {str(tmp_path / "loaded.pt")!r})
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = torch.load(tmp_path / "loaded.pt", weights_only=True)
    assert len(loaded) > 50
    assert all(torch.equal(loaded[k], tensors[k]) for k in loaded)


def test_weights_that_are_not_to_be_had_are_one_line(tmp_path):
    config = plugin.VitSection(model_name=NAME, weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(MissingPartError, match=r"^encoder\.weights: .*none\.safetensors: no such file$"):
        plugin.load_pretrained(plugin.PlainEncoder(NAME, 16), config)


def test_normalisation_is_the_models_own():
    clip = encoder_of("vit_base_patch32_clip_quickgelu_224.openai")
    assert clip.mean == (0.48145466, 0.4578275, 0.40821073)
    assert clip.std == (0.26862954, 0.26130258, 0.27577711)
    with torch.device("meta"):
        siglip = encoder_of("vit_base_patch16_siglip_224.webli")
    assert siglip.mean == siglip.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "no plain vision transformer"),
        ("swin_tiny_patch4_window7_224", "no plain vision transformer"),
        ("vit_small_r26_s32_224", "no plain vision transformer"),
        ("vit_tiny_patch17", "timm has no model"),
    ],
)
def test_models_that_cannot_serve(name, said):
    with pytest.raises(ConfigError, match=said):
        plugin.PlainEncoder(name, 16)


def test_variant_or_name_but_not_both():
    vit = registry.encoder("vit")
    named = vit.config(model_name=NAME, pyramid_channels=16)
    assert vit.build(named).model_name == NAME
    # A run's configuration spells out every default.
    assert vit.build(vit.config.model_validate_json(named.model_dump_json())).model_name == NAME
    with pytest.raises(ConfigError, match="give model_variant or model_name, not both: found b_32 and test_vit"):
        vit.build(vit.config(model_variant="b_32", model_name=NAME))
