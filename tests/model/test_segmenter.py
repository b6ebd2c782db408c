import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdeploy.config import parse_config
from segdeploy.errors import ConfigError, ModelError
from segdeploy.model.segmenter import (
    Deployed,
    Segmenter,
    aux_of,
    build,
    features_of,
    from_config,
    out_of,
    try_sizes,
    try_training,
)
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


class Sized(nn.Module):
    """Takes images of one side."""

    def __init__(self, side, error=RuntimeError):
        super().__init__()
        self.side, self.error = side, error

    def forward(self, image):
        if image.shape[-1] != self.side:
            raise self.error("the image is not mine")
        return image


@pytest.mark.parametrize("module", [Sized(384), Sized(160), Sized(100, AssertionError)])
def test_size_is_blamed_where_another_works_or_the_network_checks_it(module):
    said = "the model cannot take 96x64 images; choose another size: the image is not mine"
    with pytest.raises(ConfigError, match=said):
        try_sizes(module, {(64, 96)})


def test_network_that_takes_no_size_keeps_its_error():
    with pytest.raises(RuntimeError, match="the image is not mine"):
        try_sizes(Sized(0), {(64, 96)})


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


ENCODER = """
from typing import Literal
from torch import nn
from segdeploy.plugin import EncoderPlugin, FeatureMap, Section, hookimpl

class Config(Section):
    weights: WEIGHTS
    width: int = 4

class Levels(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.first = nn.Conv2d(3, config.width, 3, 2, 1)
        self.second = nn.Conv2d(config.width, config.width, 3, 2, 1)
        self.features = tuple(FeatureMap(channels=config.width, stride=s) for s in (2, 4))

    def forward(self, x):
        x = self.first(x)
        return x, self.second(x)

@hookimpl
def segdeploy_register_encoders(register):
    register(EncoderPlugin(name="levels", summary="", config=Config, build=Levels))
"""


def theirs(install, weights, given="", **about):
    """A model with an encoder of somebody else's, whose section declares `weights` so."""
    install("acme", "encoder.levels", ENCODER.replace("WEIGHTS", weights), **about)
    text = CONFIG.format(decoder="unet", more="").replace("{type: unet, base_channels: 4}", f"{{type: levels{given}}}")
    config = parse_config(text)
    return from_config(config, config.mask.preprocessing.class_map())


@pytest.mark.parametrize(
    ("weights", "given"),
    [
        ("Literal['none', 'imagenet'] = 'none'", ""),
        ("Literal['none', 'imagenet'] = 'imagenet'", ", weights: none"),
        ("str | None = None", ", weights: /home/me/w.pth"),
        ("Literal['none', 'imagenet']", ", weights: imagenet"),
    ],
)
def test_a_key_weights_may_be_of_any_type_and_no_path_is_kept(weights, given, install):
    spec, model = theirs(install, weights, given)
    again = build(parse_spec(spec.to_json(), "spec"))
    again.load_state_dict(model.state_dict())
    assert "/home/me" not in spec.to_json()


def changed(spec, **encoder):
    return spec.model_copy(update={"encoder": spec.encoder.model_copy(update=encoder)})


def test_another_distributions_part_of_the_same_name_is_refused(install):
    spec, _ = theirs(install, "str | None = None")
    with pytest.raises(ModelError, match=r"^the model was made with the encoder levels of other 1\.5, but here levels"):
        build(changed(spec, distribution="other"))
    build(changed(spec, distribution="ACME"))  # the same, as package indexes compare names


def test_another_version_is_opened_with_one_warning(install, caplog):
    spec, _ = theirs(install, "str | None = None")
    with caplog.at_level("WARNING", logger="segdeploy"):
        build(spec)
        assert not caplog.messages
        build(changed(spec, version="0.9"))
        build(changed(spec, version="0.9"))
    assert caplog.messages == ["the model was made with the encoder levels of acme 0.9, here is acme 1.5"]


def test_configuration_that_the_installed_version_refuses_is_one_line(install):
    spec, _ = theirs(install, "str | None = None")
    old = changed(spec, version="0.8", config={"width": "wide"})
    said = r"encoder levels of acme 0\.8, whose configuration acme 1\.5 refuses: width: .*, found 'wide'$"
    with pytest.raises(ModelError, match=said):
        build(old)


def test_the_trial_of_training_leaves_the_model_as_it_was():
    _, model = make()
    model.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    try_training(model, 2, (64, 96))
    assert not model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_one_image_that_is_pooled_to_one_cell_cannot_train():
    pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    pooling.out = FeatureMap(channels=3, stride=8)
    model = Segmenter(nn.Identity(), pooling, 5)
    with pytest.raises(
        ConfigError, match=r"train on 9x7 images, 1 at a time: Expected more .*; set trainer\.batch_size"
    ):
        try_training(model, 1, (7, 9))
    try_training(model, 2, (7, 9))
    frozen = Segmenter(pooling, Halves(), 5)
    with pytest.raises(ConfigError, match="1 at a time"):
        try_training(frozen, 1, (7, 9))
    try_training(frozen, 1, (7, 9), frozen=True)  # its statistics stay as they are


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
