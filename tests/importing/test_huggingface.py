"""A SegFormer's folder against transformers itself: logits, numbers, names, preprocessing, and what is refused."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from segdeploy.errors import ModelError
from segdeploy.importing.huggingface import read_segformer
from segdeploy.model.segmenter import Deployed
from segdeploy.model.spec import parse_spec

TINY = {
    "hidden_sizes": [8, 16, 20, 24],
    "depths": [1, 2, 1, 1],
    "num_attention_heads": [1, 2, 5, 3],
    "decoder_hidden_size": 16,
}
NAMES = {0: "road", 1: "tree", 2: "road", 3: "sky"}


def trained(kind=SegformerForSemanticSegmentation, **numbers):
    """With no weight or statistic at its initial value."""
    torch.manual_seed(7)
    model = kind(SegformerConfig(**numbers)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1 if p.ndim == 1 else p[0].numel() ** -0.5)
        if kind is SegformerForSemanticSegmentation:
            model.decode_head.batch_norm.running_mean.normal_()
            model.decode_head.batch_norm.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, its image processor, their folder."""
    folder = tmp_path_factory.mktemp("segformer")
    model = trained(id2label=NAMES, **TINY)
    model.save_pretrained(folder)
    processor = SegformerImageProcessor(
        size={"height": 96, "width": 64}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25], do_reduce_labels=True
    )
    processor.save_pretrained(folder)
    return model, processor, folder


def copy_of(saved, tmp_path, file="config.json", **changes):
    """The folder with other values in one of its files; None takes a key away."""
    folder = tmp_path / "copy"
    shutil.copytree(saved[2], folder)
    values = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    return folder


def logits_of(model, image):
    logits = model(image).logits
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("numbers", [{}, TINY], ids=["b0", "tiny"])
def test_logits_are_those_of_transformers(numbers, tmp_path):
    model = trained(num_labels=5, **numbers)
    model.save_pretrained(tmp_path)
    segmenter = read_segformer(tmp_path).segmenter()
    for size in [(64, 96), (65, 97), (99, 70)]:
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected = logits_of(model, image)
            assert expected.std() > 0.1
            torch.testing.assert_close(segmenter(image), expected, rtol=0, atol=1e-4)


def test_pictures_take_the_same_way_to_the_mask(saved):
    """The whole graph from uint8, against image processor and model."""
    model, processor, folder = saved
    imported = read_segformer(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = logits_of(model, processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]).argmax(1)
        found = Deployed(imported.segmenter(), imported.spec.preprocessing)(torch.from_numpy(pixels)[None])
    assert len(expected.unique()) > 1
    assert (found == expected).float().mean() > 0.999


def test_description(saved):
    spec = read_segformer(saved[2]).spec
    assert spec.encoder.name == "mit"
    assert spec.encoder.config["depths"] == [1, 2, 1, 1]
    assert spec.encoder.config["layer_norm_eps"] == 1e-5
    assert (spec.encoder.distribution, spec.decoder.name) == ("segdeploy", "segformer")
    assert spec.decoder.config["hidden_size"] == 16
    assert spec.classes.names == ("road (0)", "tree", "road (2)", "sky")
    assert (spec.preprocessing.height, spec.preprocessing.width, spec.preprocessing.resize) == (96, 64, "stretch")
    assert spec.preprocessing.mean == pytest.approx((0.4, 0.5, 0.6))
    assert spec.preprocessing.std == pytest.approx((0.2, 0.3, 0.25))
    assert parse_spec(spec.to_json(), "spec") == spec


def test_labels_are_read_as_transformers_reduces_them(saved):
    processor, classes = saved[1], read_segformer(saved[2]).spec.classes
    mask = np.array([[0, 1, 2, 3, 4, 255]] * 6, np.uint8)
    picture = Image.new("RGB", (6, 6))
    labels = processor(picture, mask, do_resize=False, return_tensors="np")["labels"][0][0]
    ours = {v: i for i, values in enumerate(classes.values) for v in values} | dict.fromkeys(classes.ignore_index, 255)
    assert [ours[v] for v in mask[0]] == labels.tolist()


@pytest.mark.parametrize(
    ("depths", "widths", "name"),
    [([2, 2, 2, 2], [32, 64, 160, 256], "mit_b0"), ([3, 4, 6, 3], [64, 128, 320, 512], "mit_b2")],
)
def test_published_sizes_go_by_their_names(depths, widths, name, tmp_path):
    trained(depths=depths, hidden_sizes=widths, decoder_hidden_size=16, drop_path_rate=0.2).save_pretrained(tmp_path)
    spec = read_segformer(tmp_path).spec
    assert spec.encoder.name == name
    assert spec.encoder.config == {
        "use_pretrained": False,
        "weights": None,
        "trainable": True,
        "drop_path_rate": 0.2,
    }
    assert spec.classes.names == ("LABEL_0", "LABEL_1")


def test_without_an_image_processor_transformers_defaults_hold(saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    imported = read_segformer(folder)
    found = imported.spec
    assert imported.notes[0].startswith("preprocessor_config.json: tells no size; pictures are stretched to 512x512")
    default = SegformerImageProcessor()
    assert (found.preprocessing.height, found.preprocessing.width) == (default.size["height"], default.size["width"])
    assert found.preprocessing.mean == pytest.approx(default.image_mean)
    assert found.preprocessing.std == pytest.approx(default.image_std)
    assert (found.classes.values, found.classes.ignore_index) == (None, 255)
    given = read_segformer(folder, (32, 64))
    assert (given.spec.preprocessing.height, given.notes) == (32, ())


@pytest.mark.parametrize(
    "changes",
    [{"do_normalize": False}, {"do_rescale": False, "image_mean": [100, 110, 120], "image_std": [50, 60, 70]},
     {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}],
)  # fmt: skip
def test_every_normalisation_is_translated(changes, saved, tmp_path):
    folder = copy_of(saved, tmp_path, "preprocessor_config.json", **changes)
    processor = SegformerImageProcessor.from_pretrained(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    expected = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    preprocessing = read_segformer(folder).spec.preprocessing
    found = (pixels / 255 - preprocessing.mean) / preprocessing.std
    np.testing.assert_allclose(found.transpose(2, 0, 1), expected, atol=1e-4)


def test_old_spellings_and_files(saved, tmp_path):
    model, _, source = saved
    folder = copy_of(saved, tmp_path, "preprocessor_config.json", do_reduce_labels=None, reduce_labels=True, size=48)
    tensors = load_file(source / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, folder / "pytorch_model.bin")
    imported = read_segformer(folder)
    assert imported.spec.classes.ignore_index == (0, 255)
    assert (imported.spec.preprocessing.height, imported.spec.preprocessing.width) == (48, 48)
    assert {t.dtype for t in imported.state.values()} == {torch.float32, torch.int64}
    shutil.rmtree(folder)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    whole, sharded = read_segformer(source).state, read_segformer(folder).state
    assert whole.keys() == sharded.keys()
    assert all(torch.equal(whole[k], sharded[k]) for k in whole)


def test_a_class_that_training_left_out_is_named(saved, tmp_path, caplog):
    folder = copy_of(saved, tmp_path, semantic_loss_ignore_index=1)
    (folder / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert read_segformer(folder).spec.classes.ignore_index == 255
    assert "training left class 1 (tree) out" in caplog.text


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("config.json", {"model_type": "vit"}, "model_type: expected segformer, found vit"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act: segdeploy can rebuild 'gelu' alone, found 'relu'"),
        ("config.json", {"num_channels": 4}, "num_channels: segdeploy can rebuild 3 alone, found 4"),
        ("config.json", {"depths": [1, 2]}, "depths: expected one number per stage"),
        ("config.json", {"depths": "many"}, "depths: "),
        ("config.json", {"mlp_ratios": [0.001] * 4}, "mlp_ratios: expected a hidden width of 1 or more"),
        ("config.json", {"hidden_sizes": [10**9] * 4}, "hidden_sizes.0: Input should be less than or equal to 8192"),
        ("config.json", {"hidden_sizes": [8190] * 4, "depths": [200] * 4}, "a network of 1e9 weights at most"),
        ("config.json", {"num_attention_heads": [8, 16, 20, 300]}, "num_attention_heads.3: Input should be less"),
        ("config.json", {"depths": [1, 1, 1, 1]}, "too many, such as segformer.encoder.block.1.1."),
        ("config.json", {"strides": [2, 2, 2, 2]}, "strides: segdeploy can rebuild two or more stages from stride 4"),
        ("config.json", {"decoder_hidden_size": 32}, "of another shape, such as decode_head.linear_c.0.proj.weight"),
        ("config.json", {"decoder_hidden_size": 4}, "hidden_size: "),
        ("config.json", {"id2label": {"0": "thing"}}, "segdeploy needs two classes or more, found ['thing']"),
        ("config.json", {"id2label": {"1": "a", "2": "b"}}, "expected names by id from 0 on"),
        ("config.json", {"id2label": {str(i): f"class {i}" for i in range(300)}}, "id2label: names: "),
        ("config.json", {"id2label": {"0": "a", "1": "b"}}, "decode_head.classifier.weight is 4x16x1x1"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 64}}, "'shortest_edge': 64}}; give a size"),
        ("preprocessor_config.json", {"do_resize": False}, "'do_resize': False"),
        ("preprocessor_config.json", {"do_center_crop": True}, "'do_center_crop': True"),
        ("preprocessor_config.json", {"size": {"height": "tall", "width": 3}}, "height: "),
        ("preprocessor_config.json", {"size": {"height": 10**6, "width": 10**6}}, "size.height: expected 1 to 16384"),
        ("preprocessor_config.json", {"image_mean": [10**400] * 3}, "image_mean, image_std or rescale_factor: "),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "std.0: "),
        ("preprocessor_config.json", {"image_mean": "grey"}, "image_mean, image_std or rescale_factor: expected num"),
        ("preprocessor_config.json", {"rescale_factor": 0}, "image_mean, image_std or rescale_factor: expected num"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(file, changes, said, saved, tmp_path):
    folder = copy_of(saved, tmp_path, file, **changes)
    with pytest.raises(ModelError) as caught:
        read_segformer(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("depth", [40, 200_000])
def test_files_that_are_nested_too_deeply(name, depth, saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).write_text("[" * depth + "]" * depth)
    with pytest.raises(ModelError, match=rf"{name}: not a JSON file of a model: nested too deeply$"):
        read_segformer(folder)


@pytest.mark.parametrize(
    ("changes", "noted"), [({"resample": 3}, "3"), ({"resample": [0]}, "[0]"), ({"resample": 2}, ""), ({}, "")]
)
def test_another_resampling_is_noted(changes, noted, saved, tmp_path):
    notes = read_segformer(copy_of(saved, tmp_path, "preprocessor_config.json", **changes)).notes
    assert len(notes) == bool(noted)
    assert not noted or f"preprocessor_config.json: resample is {noted!r}, not bilinear" in notes[0]


def test_other_folders_are_refused(saved, tmp_path):
    with pytest.raises(ModelError, match=r"none: expected a folder of save_pretrained, with config\.json"):
        read_segformer(tmp_path / "none")
    trained(SegformerForImageClassification, **TINY).save_pretrained(tmp_path / "classifier")
    with pytest.raises(ModelError, match=r"expected a SegformerForSemanticSegmentation$"):
        read_segformer(tmp_path / "classifier")
    folder = copy_of(saved, tmp_path)
    (folder / "preprocessor_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: expected keys and values"):
        read_segformer(folder)
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: not a JSON file"):
        read_segformer(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"decode_head.extra": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"1 too many, such as decode_head\.extra"):
        read_segformer(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        read_segformer(folder)
