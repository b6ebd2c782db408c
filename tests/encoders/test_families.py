"""The table from Ludwig's names to timm's: every model is there and is a pyramid, and users can read it."""

import json

import pytest
import timm
import torch
from click.testing import CliRunner
from pydantic import ValidationError

from segdeploy.cli.main import cli
from segdeploy.encoders.family_table import FAMILIES
from segdeploy.encoders.timm import TimmEncoder
from segdeploy.encoders.vit_table import PLAIN_FAMILIES
from segdeploy.plugin import registry

ALL = (*FAMILIES, *PLAIN_FAMILIES)
NO_WEIGHTS = {"mnasnet_050", "mnasnet_075"}
VARIANTS = [pytest.param(f, v, id=f"{f.name}-{v}") for f in ALL for v in f.models]


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_timm_has_every_model_with_trained_weights(family, variant):
    model = family.models[variant]
    if model in NO_WEIGHTS:
        assert timm.is_model(model)
        assert not timm.list_models(f"{model}*", pretrained=True)
    else:
        assert model in timm.list_models(model, pretrained=True)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_variant_gives_rising_strides(family):
    for model in sorted({name.split(".")[0] for name in family.models.values()}):  # a tag changes weights alone
        with torch.device("meta"):
            encoder = TimmEncoder(model)
        strides = [f.stride for f in encoder.features]
        assert strides[-4:] == [4, 8, 16, 32]
        assert strides == sorted(set(strides))


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_plugins_show_prints_the_table(family):
    shown = CliRunner().invoke(cli, ["plugins", "show", family.name]).output
    for variant, model in family.models.items():
        assert f"      {variant}: {model}\n" in shown


@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_keys_are_ludwigs(family):
    section = registry.encoder(family.name).config
    assert getattr(section(), family.key) == family.default
    for variant in family.models:
        read = section.model_validate_json(json.dumps({family.key: variant}))
        assert getattr(read, family.key) == variant
    with pytest.raises(ValidationError, match=str(next(iter(family.models)))):
        section.model_validate_json(json.dumps({family.key: "none such"}))


def test_the_variant_is_the_one_that_is_built():
    plugin = registry.encoder("resnet")
    section = plugin.config
    assert plugin.build(section(model_variant=18)).model_name == "resnet18.tv_in1k"
    assert plugin.build(section()).model_name == "resnet50.tv2_in1k"
