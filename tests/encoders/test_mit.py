"""Mix Transformer: transformers' own numbers, its files, the published sizes, a graph for any height and width."""

import json
import os
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerModel,
)

from segdeploy.encoders import mit
from segdeploy.encoders.mit_table import PRESETS, MitConfig
from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.plugin import registry

WIDE = {"hidden_sizes": [64, 128, 320, 512]}
TINY = {"hidden_sizes": [8, 16, 20, 24], "depths": [1, 2, 1, 1], "num_attention_heads": [1, 2, 5, 3]}
UNUSUAL = {
    "num_encoder_blocks": 3,
    "hidden_sizes": [12, 16, 24],
    "depths": [1, 2, 1],
    "num_attention_heads": [3, 1, 2],
    "sr_ratios": [4, 1, 3],
    "patch_sizes": [5, 3, 7],
    "strides": [2, 3, 4],
    "mlp_ratios": [2, 4, 3],
}


def transformers_model(kind=SegformerModel, **numbers):
    """With no weight at its initial value, so that none can be mistaken for another, and activations of about 1."""
    torch.manual_seed(7)
    model = kind(SegformerConfig(**numbers)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.1 if p.ndim == 1 else p[0].numel() ** -0.5)
    return model


def own_config(numbers, **more):
    values = {k: v for k, v in numbers.items() if k != "num_encoder_blocks"}
    return MitConfig.model_validate_json(json.dumps(values | more))


def loaded(weights, numbers):
    config = own_config(numbers, weights=str(weights))
    torch.manual_seed(0)
    encoder = mit.MixTransformer(config).eval()
    mit.load_own(encoder, config)
    return encoder


def distance(encoder, model, size):
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        found, expected = encoder(image), model(image, output_hidden_states=True).hidden_states
    assert [m.shape for m in found] == [m.shape for m in expected]
    return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "numbers",
    [{}, WIDE | {"depths": [1, 2, 1, 1]}, TINY, UNUSUAL],
    ids=["b0", "the widths of b1 to b5", "tiny", "three stages of other numbers"],
)
def test_maps_are_those_of_transformers(numbers, tmp_path):
    model = transformers_model(**numbers)
    model.save_pretrained(tmp_path)
    encoder = loaded(tmp_path, numbers)
    for size in [(64, 96), (65, 97), (99, 70), (127, 55)]:
        assert distance(encoder, model, size) < 1e-5


# https://huggingface.co/docs/transformers/model_doc/segformer; the millions are table 2's encoders of the paper.
PUBLISHED = [
    ("mit_b0", [2, 2, 2, 2], [32, 64, 160, 256], 3.4),
    ("mit_b1", [2, 2, 2, 2], [64, 128, 320, 512], 13.1),
    ("mit_b2", [3, 4, 6, 3], [64, 128, 320, 512], 24.2),
    ("mit_b3", [3, 4, 18, 3], [64, 128, 320, 512], 44.0),
    ("mit_b4", [3, 8, 27, 3], [64, 128, 320, 512], 60.8),
    ("mit_b5", [3, 6, 40, 3], [64, 128, 320, 512], 81.4),
]


@pytest.mark.parametrize(("name", "depths", "widths", "millions"), PUBLISHED)
def test_sizes_are_the_published_ones(name, depths, widths, millions):
    published = SegformerConfig(depths=depths, hidden_sizes=widths)
    plugin = registry.encoder(name)
    with torch.device("meta"):
        encoder = plugin.build(plugin.config(use_pretrained=False))
        model = SegformerModel(published)
    for key in ("num_attention_heads", "sr_ratios", "patch_sizes", "strides", "mlp_ratios", "depths", "hidden_sizes"):
        assert list(getattr(encoder.config, key)) == list(getattr(published, key))
    assert encoder.config.layer_norm_eps == model.stages[0].layer_norm.eps
    count = sum(p.numel() for p in encoder.parameters())
    assert count == sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03 if name == "mit_b0" else 0.005)
    assert [f.channels for f in encoder.features] == widths
    assert [f.stride for f in encoder.features] == [4, 8, 16, 32]


def test_every_preset_is_tested():
    assert [name for name, *_ in PUBLISHED] == list(PRESETS)


def test_drop_path_rises_as_in_transformers():
    plugin = registry.encoder("mit_b0")
    encoder = plugin.build(plugin.config(drop_path_rate=0.3))
    model = SegformerModel(SegformerConfig(drop_path_rate=0.3))
    expected = [getattr(b.drop_path, "drop_prob", 0.0) for s in model.stages for b in s.blocks]
    assert [b.drop_path.drop_prob for s in encoder.stages for b in s.blocks] == pytest.approx(expected)
    assert expected[-1] == 0.3


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory):
    """A whole model and its folder."""
    folder = tmp_path_factory.mktemp("segformer")
    model = transformers_model(SegformerForSemanticSegmentation, decoder_hidden_size=16, num_labels=4, **TINY)
    model.save_pretrained(folder)
    return model, folder


def all_shapes(model, folder, path):
    """Every form in which such weights are met, written under `path`."""
    tensors = load_file(folder / "model.safetensors")
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in tensors
    bare = transformers_model(**TINY)
    bare.load_state_dict(model.segformer.state_dict())
    bare.save_pretrained(path / "bare")
    classifier = transformers_model(SegformerForImageClassification, **TINY)
    classifier.segformer.load_state_dict(model.segformer.state_dict())
    classifier.save_pretrained(path / "classifier")
    model.save_pretrained(path / "sharded", max_shard_size="20KB")
    assert len(list((path / "sharded").glob("*.safetensors"))) > 1
    (path / "hub").mkdir()
    (path / "hub" / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save(tensors, path / "hub" / "pytorch_model.bin")
    torch.save(model.state_dict(), path / "modules.pt")
    torch.save(bare.state_dict(), path / "bare_modules.pth")
    places = ["bare", "classifier", "sharded", "hub", "hub/pytorch_model.bin", "modules.pt", "bare_modules.pth"]
    return [folder, folder / "model.safetensors", *(path / place for place in places)]


def test_every_form_of_the_weights_loads(segmentation, tmp_path):
    model, folder = segmentation
    for place in all_shapes(model, folder, tmp_path):
        assert distance(loaded(place, TINY), model.segformer, (65, 97)) < 1e-5, place


def test_half_precision_weights_become_float(segmentation, tmp_path):
    model, folder = segmentation
    halves = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(halves, tmp_path / "half.safetensors")
    encoder = loaded(tmp_path / "half.safetensors", TINY)
    weight = encoder.stages[0].blocks[0].attention.q_proj.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.segformer.stages[0].blocks[0].attention.q_proj.weight.half().float())


def refuse(weights, *words, numbers=TINY):
    """One line that says all of `words`, and an encoder as it was."""
    config = own_config(numbers, weights=str(weights))
    encoder = mit.MixTransformer(config)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(MissingPartError) as caught:
        mit.load_own(encoder, config)
    said = str(caught.value)
    assert said.startswith("encoder.weights: ")
    assert str(weights) in said
    assert "\n" not in said
    assert all(word in said for word in words), said
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


class Payload:
    """What a hostile pickle does when it is read."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_unusable_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(tmp_path / "none", "no such file or folder")
    (tmp_path / "folder").mkdir()
    refuse(tmp_path / "folder", "expected model.safetensors or pytorch_model.bin", "found nothing")
    (tmp_path / "w.h5").write_bytes(b"1")
    refuse(tmp_path / "w.h5", "expected a .safetensors file")
    (tmp_path / "w.safetensors").write_bytes(b"not safetensors")
    refuse(tmp_path / "w.safetensors", "cannot be read as weights")
    torch.save({"weight": Payload()}, tmp_path / "w.bin")
    refuse(tmp_path / "w.bin", "nothing that only running code can read")
    assert not (tmp_path / "owned").exists()
    torch.save([1, 2], tmp_path / "list.bin")
    refuse(tmp_path / "list.bin", "expected tensors by name")
    save_file({"fc.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    refuse(tmp_path / "other.safetensors", "expected a SegFormer's names", "found fc.weight")


def test_damaged_folders_are_refused(segmentation, tmp_path):
    model, _ = segmentation
    sharded = tmp_path / "sharded"
    model.save_pretrained(sharded, max_shard_size="20KB")
    index = sharded / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    first = min(sharded.glob("*.safetensors"))
    first.rename(sharded / "elsewhere")
    refuse(sharded, first.name, "is not there")
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    refuse(sharded, "expected names of files beside it", "'../model.safetensors'")
    for broken in ([], None, whole | {"weight_map": 3}, {"weight_map": None}, {"weight_map": {"a": 1}}, {"a": "b"}):
        index.write_text(json.dumps(broken))
        refuse(sharded, "expected an index")
    index.write_text("{")
    refuse(sharded, "model.safetensors.index.json: not a JSON file")
    (sharded / "config.json").write_text("{")
    refuse(sharded, "config.json: not a JSON file")
    (sharded / "config.json").write_text('{"model_type": "vit"}')
    refuse(sharded, "model_type: expected segformer, found vit")


def test_weights_of_another_network_are_refused(segmentation, tmp_path):
    _, folder = segmentation
    tensors = load_file(folder / "model.safetensors")
    refuse(folder, "config.json: depths: expected this encoder's [2, 1, 1, 1], found [1, 2, 1, 1]",
           numbers=TINY | {"depths": [2, 1, 1, 1]})  # fmt: skip
    # Only config.json tells of heads.
    refuse(folder, "num_attention_heads", numbers=TINY | {"num_attention_heads": [2, 2, 5, 3]})
    file = folder / "model.safetensors"
    wide = "segformer.encoder.patch_embeddings.0.proj.weight is 8x3x7x7, expected 9x3x7x7"
    refuse(file, "of another shape", wide, numbers=TINY | {"hidden_sizes": [9, 16, 20, 24]})
    # The first blocks of a deeper network would fit.
    refuse(file, "22 too many", "segformer.encoder.block.1.1.", numbers=TINY | {"depths": [1, 1, 1, 1]})
    gone = "segformer.encoder.layer_norm.3.bias"
    save_file({k: v for k, v in tensors.items() if k != gone}, tmp_path / "w.safetensors")
    refuse(tmp_path / "w.safetensors", f"1 missing, such as {gone}")


def test_presets_take_local_weights(tmp_path):
    model = transformers_model(SegformerForImageClassification)
    model.save_pretrained(tmp_path)
    for name in ("mit_b0", "mit_b1"):
        plugin = registry.encoder(name)
        config = plugin.config(weights=str(tmp_path))
        encoder = plugin.build(config).eval()
        if name == "mit_b0":
            plugin.load_pretrained(encoder, config)
            assert distance(encoder, model.segformer, (64, 64)) < 1e-5
        else:
            with pytest.raises(MissingPartError, match=r"hidden_sizes: expected this encoder's \[64, 128, 320, 512\]"):
                plugin.load_pretrained(encoder, config)


def test_weights_from_the_hubs_cache_offline(tmp_path):
    """The cache's own layout: models--nvidia--mit-b0/{refs/main, snapshots/COMMIT/pytorch_model.bin}; no network."""
    model = transformers_model(SegformerForImageClassification)
    model.save_pretrained(tmp_path / "saved")
    commit = "0" * 40
    snapshot = tmp_path / "hub" / "models--nvidia--mit-b0" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    torch.save(load_file(tmp_path / "saved" / "model.safetensors"), snapshot / "pytorch_model.bin")
    code = f"""
import torch
from segdeploy.errors import MissingPartError
from segdeploy.plugin import registry
for name in ("mit_b0", "mit_b1"):
    plugin = registry.encoder(name)
    encoder = plugin.build(plugin.config())
    try:
        plugin.load_pretrained(encoder, plugin.config())
        torch.save(encoder.state_dict(), {str(tmp_path / "loaded.pt")!r})
    except MissingPartError as e:
        print(e)
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    encoder = registry.encoder("mit_b0").build(registry.encoder("mit_b0").config()).eval()
    encoder.load_state_dict(torch.load(tmp_path / "loaded.pt", weights_only=True))
    assert distance(encoder, model.segformer, (64, 64)) < 1e-5
    (line,) = done.stdout.splitlines()
    assert line.startswith("encoder.use_pretrained: nvidia/mit-b1: the weights could not be loaded")
    assert line.endswith("set use_pretrained: false, or weights: FILE_OR_FOLDER")
    (line,) = done.stderr.splitlines()
    assert line.startswith("encoder.use_pretrained: nvidia/mit-b0: these weights are NVIDIA's, for research and eval")
    assert line.endswith("use_pretrained: false does without")


def test_graph_for_any_height_and_width():
    torch.manual_seed(0)
    numbers = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 40, 48], "num_attention_heads": [1, 2, 5, 3]}
    encoder = mit.MixTransformer(own_config(numbers)).eval()
    names = [f"map{i}" for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder,
            (torch.zeros(2, 3, 99, 70),),
            input_names=["image"],
            output_names=names,
            dynamic_shapes={"image": {0: "batch", 2: "height", 3: "width"}},
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    count = Counter(node.op_type for node in program.model_proto.graph.node)
    norms = sum(isinstance(m, torch.nn.LayerNorm) for m in encoder.modules())
    assert count["LayerNormalization"] == norms
    assert count["Softmax"] == 4
    # Queries, keys, values and their join, and the feed-forward part at either end; the shrinking at either end; one
    # after each patch convolution and one before each map.
    assert count["Transpose"] == 4 * 6 + 3 * 2 + 4 * 2
    assert not count.keys() & {"Slice", "Where", "Cast", "Gather", "Expand", "If"}
    session = ort.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, size in [(2, (99, 70)), (1, (64, 96)), (3, (65, 129)), (1, (33, 250)), (1, (256, 256))]:
        image = torch.randn(batch, 3, *size)
        with torch.no_grad():
            expected = encoder(image)
        for found, wanted in zip(session.run(names, {"image": image.numpy()}), expected, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-5)
    assert encoder.dynamic_size


CONFIG = """
input_features:
  - {name: image, type: image, encoder: {type: mit, %s}}
output_features:
  - {name: mask, type: image, preprocessing: {num_classes: 3}, decoder: {type: fpn}}
"""


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("depths: [2, 2]", "depths: expected one number per stage, 4 as in hidden_sizes, got (2, 2)"),
        ("hidden_sizes: [32, 64, 161, 256]", "num_attention_heads: expected a divisor of the width 161, got 5"),
        ("patch_sizes: [7, 4, 3, 3]", "patch_sizes: expected odd numbers, got (7, 4, 3, 3)"),
        ("strides: [4, 1, 2, 2]", "strides"),
        ("drop_path_rate: 1.0", "drop_path_rate"),
        ("use_pretrained: true", "unknown key"),
    ],
)
def test_numbers_that_make_no_encoder(keys, said, tmp_path):
    from segdeploy.config.load import load_config

    (tmp_path / "config.yaml").write_text(CONFIG % keys)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.yaml")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
