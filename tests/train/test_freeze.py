import pytest
import torch
from torch import nn

from segdeploy.errors import ConfigError
from segdeploy.train.freeze import freeze, rest


@pytest.fixture
def model():
    def block():
        return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())

    return nn.ModuleDict({"encoder": nn.ModuleList([block(), block()]), "head": nn.Conv2d(3, 2, 1)})


def test_what_a_pattern_finds_keeps_its_values(model):
    found = freeze(model, [r"^encoder\.0\.", r"head\.bias"])
    assert found == ["encoder.0.0.weight", "encoder.0.0.bias", "encoder.0.1.weight", "encoder.0.1.bias", "head.bias"]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == found
    assert freeze(model, []) == []


def test_frozen_parts_rest_and_the_others_learn(model):
    freeze(model, [r"^encoder\.0\.", r"encoder\.1\.0"])
    model.train()
    rest(model)
    modes = {name: module.training for name, module in model.named_modules()}
    assert [name for name, training in modes.items() if not training] == [
        "encoder.0", "encoder.0.0", "encoder.0.1", "encoder.0.2", "encoder.1.0",
    ]  # fmt: skip
    x = torch.randn(4, 3, 5, 5)
    for block in model["encoder"]:
        block(x)
    assert model["encoder"][0][1].num_batches_tracked == 0
    assert model["encoder"][1][1].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["^encodr"], r"'\^encodr' is found in no parameter's name; names are such as encoder\."),
        (["head", "decoder"], "'decoder' is found in no parameter's name"),
        ([""], "every parameter is frozen, so there is nothing to learn"),
    ],
)
def test_patterns_that_cannot_be_meant(patterns, said, model):
    with pytest.raises(ConfigError, match=said):
        freeze(model, patterns)
