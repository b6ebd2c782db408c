"""Networks of segmentation_models.pytorch: the same logits, or one line that says why not."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from segdeploy.errors import ConfigError, MissingPartError, ModelError
from segdeploy.importing.smp import _where, read_smp
from segdeploy.plugin import manager, registry

SIZE = (64, 96)
SMALL = {"decoder_channels": (32, 24, 16, 16, 8)}
CASES = [
    ("Unet", "tu-resnet18", {"encoder_depth": 4, "decoder_channels": (32, 24, 16, 8)}),
    ("Unet", "tu-convnext_atto", SMALL | {"decoder_interpolation": "bilinear", "decoder_use_norm": False}),
    ("Unet", "tu-mobilenetv3_small_050", SMALL),
    ("Unet", "tu-repvgg_a0", SMALL | {"decoder_use_norm": {"type": "batchnorm"}}),
    ("Unet", "resnet18", {"encoder_depth": 3, "decoder_channels": (32, 24, 16)}),
    ("Unet", "mit_b0", SMALL),
    ("FPN", "tu-mobilenetv3_small_050", {"decoder_interpolation": "bilinear"}),
    ("FPN", "tu-convnext_atto", {"decoder_merge_policy": "cat", "decoder_pyramid_channels": 64}),
    ("FPN", "resnet18", {"encoder_depth": 4, "upsampling": 2, "decoder_segmentation_channels": 64}),
    ("FPN", "mit_b0", {}),
    ("Segformer", "resnet18", {}),
    ("Segformer", "tu-convnext_atto", {"decoder_segmentation_channels": 64}),
    ("Segformer", "tu-mobilenetv3_small_050", {"encoder_depth": 3}),
    ("Segformer", "mit_b0", {}),
    ("DeepLabV3Plus", "tu-resnet18", {}),
    ("DeepLabV3Plus", "tu-mobilenetv3_small_050", {"encoder_output_stride": 8, "decoder_atrous_rates": (2, 4, 6)}),
    ("DeepLabV3Plus", "resnet18", {"encoder_depth": 3, "decoder_aspp_separable": False}),
]


def read(folder, size=SIZE):
    return read_smp(folder, json.loads((folder / "config.json").read_text()), size)


def logits_of(model, image):
    with torch.inference_mode():
        return model(image)


@pytest.mark.parametrize(("architecture", "encoder", "options"), CASES)
def test_logits_are_the_originals(saved, architecture, encoder, options):
    if architecture == "DeepLabV3Plus":
        pytest.importorskip("segdeploy_deeplabv3plus")
    original, folder = saved(architecture, encoder, classes=3, **options)
    imported = read(folder)
    image = torch.randn(2, 3, *SIZE)
    expected = logits_of(original, image)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits_of(imported.segmenter(), image), expected, rtol=0, atol=1e-4)
    assert imported.notes == ("the folder tells no names of classes; see --classes",)


def test_one_logit_becomes_two_classes(saved):
    original, folder = saved("Unet", "tu-mobilenetv3_small_050", classes=1, activation="sigmoid", **SMALL)
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():  # half of the pixels on either side
        original.segmentation_head[0].bias -= logits_of(original, image).logit().median()
    original.save_pretrained(folder)
    imported = read(folder)
    probability = logits_of(original, image)[:, 0]
    logits = logits_of(imported.segmenter(), image)
    assert 0.05 < (probability > 0.5).float().mean() < 0.95
    assert torch.equal(logits.argmax(1), (probability > 0.5).long())
    torch.testing.assert_close(logits[:, 1].sigmoid(), probability, rtol=0, atol=1e-5)
    assert not logits[:, 0].any()
    assert imported.spec.classes.names == ("background", "foreground")
    assert "background" not in imported.notes[0]
    assert "sigmoid is above 0.5" in imported.notes[0]


def test_classification_head_is_left_out(saved):
    original, folder = saved("FPN", "tu-mobilenetv3_small_050", classes=2, aux_params={"classes": 4})
    imported = read(folder)
    image = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(logits_of(imported.segmenter(), image), logits_of(original, image)[0])
    assert [n for n in imported.notes if "classification head" in n]


def test_older_file_of_torch_and_half_precision(saved):
    original, folder = saved("Unet", "tu-mobilenetv3_small_050", classes=2, **SMALL)
    half = {name: t.half() if t.is_floating_point() else t for name, t in original.state_dict().items()}
    torch.save(half, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    original.load_state_dict(half)
    image = torch.randn(1, 3, *SIZE)
    found = logits_of(read(folder).segmenter(), image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits_of(original, image))


def test_pickles_that_run_code_are_not_read(saved):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    _, folder = saved("Unet", "tu-mobilenetv3_small_050", classes=2, **SMALL)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(
        MissingPartError, match=r"pytorch_model\.bin: expected tensors by name, and nothing that only running"
    ):
        read(folder)


def test_normalisation_is_that_of_the_weights_in_timm(saved):
    assert read(saved("Unet", "tu-mobilenetv3_small_050", **SMALL)[1]).spec.preprocessing.mean == (0.485, 0.456, 0.406)
    inception = read(saved("Unet", "tu-tf_mobilenetv3_small_minimal_100.in1k", **SMALL)[1]).spec.preprocessing
    assert (inception.mean, inception.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


REFUSED = [
    (
        {"_model_class": "UnetPlusPlus"},
        "_model_class: expected Unet, FPN, Segformer, DeepLabV3Plus, found 'UnetPlusPlus'",
    ),
    ({"encoder_name": "efficientnet-b0"}, "encoder_name: expected tu-NAME .* found efficientnet-b0"),
    ({"encoder_name": "tu-nosuch"}, "encoder_name: timm has no model 'nosuch'"),
    ({"encoder_name": "tu-hf-hub:timm/resnet18"}, "encoder_name: expected tu-NAME .* found tu-hf-hub"),
    ({"encoder_name": "tu-evil/resnet18"}, "encoder_name: expected a name of timm's own, .* found 'evil/resnet18'"),
    ({"encoder_name": "tu-resnet18\nsegdeploy: all is well"}, "encoder_name: String should match pattern"),
    ({"encoder_name": "tu-vit_tiny_patch16_224"}, "encoder_name: "),
    ({"encoder_depth": 2}, "encoder_depth: Input should be 3, 4 or 5, found 2"),
    ({"in_channels": 4}, "in_channels: Input should be 3, found 4"),
    ({"activation": "tanh"}, "activation: .* found 'tanh'"),
    ({"activation": "sigmoid"}, "activation: sigmoid with 2 classes gives several labels"),
    ({"decoder_attention_type": "scse"}, "decoder_attention_type: .* found 'scse'"),
    ({"decoder_interpolation": "area"}, "decoder_interpolation: .* found 'area'"),
    ({"decoder_use_norm": "layernorm"}, "decoder_use_norm: expected batchnorm or identity, found 'layernorm'"),
    ({"decoder_use_norm": {"type": "batchnorm", "eps": 1}}, "decoder_use_norm: expected batchnorm or identity"),
    ({"decoder_channels": [32, 16]}, "decoder_channels: expected 5 numbers, found"),
    ({"decoder_channels": [32, 24, 16, 16, 4]}, "decoder unet: channels.4: .* found 4"),
    ({"drop_path_rate": 0.1}, "drop_path_rate: Extra inputs are not permitted"),
    ({"_model_class": "FPN", "upsampling": 8}, "upsampling: expected 4, which brings the logits .* found 8"),
    ({"_model_class": "FPN", "encoder_depth": 3}, "encoder_depth: expected four levels, found strides 2, 4, 8"),
    ({"_model_class": "DeepLabV3Plus", "encoder_name": "resnet18"}, "found resnet18, which smp dilates"),
    ({"_model_class": "DeepLabV3Plus", "encoder_name": "mit_b0"}, "found mit_b0, which smp dilates"),
    ({"classes": 3}, "not those of this network: 2 of another shape, such as head."),
    ({"encoder_name": "tu-mobilenetv3_small_075"}, "not those of this network: .* of another shape"),
    ({"encoder_name": "tu-convnext_atto"}, "not those of this network: .* missing, .* too many"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_rebuilt_is_one_line(unet, tmp_path, change, message):
    folder = shutil.copytree(unet, tmp_path / "changed")
    file = folder / "config.json"
    content = json.loads(file.read_text()) | change
    if content["_model_class"] != "Unet":
        content = {k: v for k, v in content.items() if not k.startswith("decoder_")}
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        read(folder)
    said = str(caught.value)
    assert re.search(message, said), said
    assert said.startswith(str(folder))
    assert "\n" not in said


def test_weights_that_are_cut_short_are_refused(unet, tmp_path):
    folder = shutil.copytree(unet, tmp_path / "short")
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({k: v for k, v in whole.items() if k != "decoder.blocks.1.conv2.0.weight"}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"1 missing, such as decoder\.blocks\.1\.1\.0\.weight"):
        read(folder)


@pytest.mark.parametrize("size", [(60, 96), (64, 100)])
def test_sizes_that_the_original_does_not_take(unet, size):
    with pytest.raises(ConfigError, match=r"expected multiples of 32, .* nearest size \(width x height\) is 96x64"):
        read(unet, size)


def test_decoder_that_is_installed_and_left_out_says_so(saved, monkeypatch):
    pytest.importorskip("segdeploy_deeplabv3plus")
    _, folder = saved("DeepLabV3Plus", "tu-mobilenetv3_small_050", classes=2)
    monkeypatch.setenv("SEGDEPLOY_PLUGINS", "none")
    for cached in (manager.load, registry.catalogue):
        cached.cache_clear()
    try:
        with pytest.raises(MissingPartError, match="DeepLabV3Plus needs the package") as caught:
            read(folder)
    finally:
        monkeypatch.undo()
        for cached in (manager.load, registry.catalogue):
            cached.cache_clear()
    said = str(caught.value)
    assert re.search(r"is installed; .*segdeploy-deeplabv3plus.* did not load: left out by SEGDEPLOY_PLUGINS", said)
    assert "pip install" not in said


def test_decoder_that_is_not_installed_names_its_package():
    assert _where("segdeploy-nowhere") == "pip install segdeploy-nowhere"
