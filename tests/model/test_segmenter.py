import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdeploy.config import parse_config
from segdeploy.errors import ConfigError, ModelError
from segdeploy.model.segmenter import Deployed, Segmenter, aux_of, build, features_of, from_config, out_of
from segdeploy.model.spec import Head, Preprocessing, parse_spec
from segdeploy.plugin import Auxiliary, FeatureMap

CONFIG = """
input_features:
  - name: image
    type: image
    preprocessing: {{height: 64, width: 96{more}}}
    encoder: {{type: unet, base_channels: 4}}
output_features:
  - name: mask
    type: image
    preprocessing: {{num_classes: 3}}
    decoder: {{type: {decoder}}}
"""


def make(decoder="unet", more=""):
    config = parse_config(CONFIG.format(decoder=decoder, more=more))
    return from_config(config, config.mask.preprocessing.class_map())


def test_deployed_is_normalise_then_segment_then_argmax():
    class Channels(nn.Module):
        def forward(self, x):
            self.seen = x
            return x

    inner = Channels()
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    module = Deployed(inner, Preprocessing(height=5, width=7, resize="stretch", mean=mean, std=std))
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    mask = module(torch.from_numpy(image)).numpy()
    expected = (image / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(inner.seen.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert mask.dtype == np.uint8
    assert (mask == inner.seen.numpy().argmax(1)).all()


def test_ties_go_to_the_first_class():
    module = Deployed(nn.Identity(), Preprocessing(height=2, width=2, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1)))
    assert module(torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)).tolist() == [[[0, 0], [0, 0]]]


def test_description_rebuilds_the_model():
    spec, model = make()
    again = build(parse_spec(spec.to_json(), "spec"))
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 96)
    assert torch.equal(model.eval()(x), again.eval()(x))
    assert (spec.encoder.distribution, spec.encoder.name) == ("segdeploy", "unet")


def test_normalisation_is_the_configurations_then_the_encoders():
    assert make(more=", mean: [0.5, 0.25, 0.125], std: [1, 2, 3]")[0].preprocessing.mean == (0.5, 0.25, 0.125)
    assert make()[0].preprocessing.mean == (0.485, 0.456, 0.406)


def test_decoder_that_cannot_use_the_levels():
    config = parse_config(CONFIG.format(decoder="fpn", more=""), overrides=["encoder.num_stages=1"])
    with pytest.raises(ConfigError, match=r"decoder fpn: needs 2 or more levels .* gives 1, 2"):
        from_config(config, config.mask.preprocessing.class_map())


def test_part_that_is_not_installed_names_its_package():
    spec, _ = make()
    lost = spec.model_copy(
        update={"decoder": spec.decoder.model_copy(update={"name": "unett", "distribution": "acme"})}
    )
    with pytest.raises(ModelError, match=r"did you mean 'unet'.*unett of acme"):
        build(lost)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_keys_that_a_plugin_does_not_take_are_one_line(part):
    """As a run of another version's, or of somebody who means harm, may have them."""
    spec, _ = make()
    changed = getattr(spec, part).model_copy(update={"config": {"channels": "many"}})
    with pytest.raises(ModelError, match=r"^unet\.channels: .*; the model was made with unet of segdeploy \S+$"):
        build(spec.model_copy(update={part: changed}))


def test_parts_that_break_the_contract_are_named():
    with pytest.raises(TypeError, match="features: expected a tuple of FeatureMap"):
        features_of(nn.Identity())
    with pytest.raises(TypeError, match="out: expected a FeatureMap"):
        out_of(nn.Identity())
    wrong = nn.Identity()
    wrong.aux = (FeatureMap(channels=3, stride=8),)
    with pytest.raises(TypeError, match="aux: expected a tuple of Auxiliary"):
        aux_of(wrong)


class Halves(nn.Module):
    """Every second pixel; one auxiliary map: the negative of it."""

    out = FeatureMap(channels=3, stride=2)
    aux = (Auxiliary(channels=3, stride=2, weight=0.4),)

    def forward(self, x):
        return x[..., ::2, ::2]

    def forward_aux(self, x):
        return self(x), (-self(x),)


def test_auxiliary_maps_get_their_own_classes_and_only_when_asked():
    model = Segmenter(nn.Identity(), Halves(), 5)
    image = torch.randn(2, 3, 9, 7)
    logits, ((weight, extra),) = model.forward_aux(image)
    assert weight == 0.4
    assert torch.equal(logits, model(image))
    by_hand = F.interpolate(model.aux_heads[0](-image[..., ::2, ::2]), size=(9, 7), mode="bilinear")
    assert torch.equal(extra, by_hand)
    model(image).sum().backward()
    assert all(p.grad is None for p in model.aux_heads.parameters())


@pytest.mark.parametrize("align", [False, True])
def test_form_of_the_class_layer_is_the_descriptions(align):
    model = Segmenter(nn.Identity(), Halves(), 5, Head(kernel_size=3, align_corners=align))
    image = torch.randn(2, 3, 8, 6)
    small = F.conv2d(image[..., ::2, ::2], model.head.weight, model.head.bias, padding=1)
    by_hand = F.interpolate(small, size=(8, 6), mode="bilinear", align_corners=align)
    assert torch.equal(model(image), by_hand)
    whole = Segmenter(nn.Identity(), Halves(), 3, Head(kind="none"))
    assert [n for n, _ in whole.named_parameters()] == ["aux_heads.0.weight", "aux_heads.0.bias"]
    assert torch.equal(whole(image), F.interpolate(image[..., ::2, ::2], size=(8, 6), mode="bilinear"))


def test_logits_of_another_number_of_classes_are_refused():
    with pytest.raises(ConfigError, match="the network tells 3 classes apart, expected 5"):
        Segmenter(nn.Identity(), Halves(), 5, Head(kind="none"))


def test_description_without_a_head_is_of_the_plain_form():
    """Runs that were written before the key existed."""
    about = json.loads(make()[0].to_json())
    del about["head"]
    assert parse_spec(json.dumps(about), "model.json") == make()[0]


def test_description_from_elsewhere_is_one_line():
    with pytest.raises(ModelError, match=r"model\.json: not a model description"):
        parse_spec("{}", "model.json")


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a b", "", "x" * 65, "mask\n"])
def test_name_that_could_leave_the_output_folder_is_refused(name):
    """A bundle comes from strangers, and the mask's name becomes a file's."""
    about = json.loads(make()[0].to_json()) | {"mask_name": name}
    with pytest.raises(ModelError, match=r"model\.json: not a model description of this segdeploy: mask_name"):
        parse_spec(json.dumps(about), "model.json")
