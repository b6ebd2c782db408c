"""Every registered encoder, decoder and backend, ours and third parties', by every rule of the conformance kit.

Encoders and decoders meet their partner there; what only a pair can show is asked of a transformer with every decoder.
"""

import functools

import pytest

from segdeploy.conformance.check import judge_of
from segdeploy.conformance.find import all_parts, parts
from segdeploy.conformance.table import rules_for
from segdeploy.encoders.mit_table import PRESETS
from segdeploy.plugin import registry

# What keeps a part small; a part without an entry is tested as its defaults make it.
SMALL = {
    "encoder timm": {"model_name": "mobilenetv3_small_050"},
    "encoder convnextv2": {"model_name": "convnextv2_atto"},
    "encoder unet": {"base_channels": 8},
    "encoder convnext": {"model_variant": "tiny"},
    "encoder resnet": {"model_variant": 18},
    "encoder regnet": {"model_variant": "x_400mf"},
    "encoder vit": {"model_name": "test_vit", "pyramid_channels": 32},
    "encoder dinov2": {"pretrained_model_name_or_path": "facebook/dinov2-small", "pyramid_channels": 32},
    "encoder clip": {"pyramid_channels": 32},
    "encoder siglip": {"pyramid_channels": 32},
    "decoder fpn": {"num_channels": 32, "merge_channels": 16},
    "decoder panoptic_fpn": {"num_channels": 32, "merge_channels": 32},
    "decoder segformer": {"hidden_size": 32},
    "decoder unet": {"channels": [32, 24, 16]},
}
SMALL["encoder factory"] = {"function": "twins:make_network", "channels": 6, "stride": 2}
# A whole network from elsewhere, and what hands its logits on: they fit each other alone.
PARTNER = {"encoder factory": "logits"}
PARTS = {str(part): part for part in all_parts() if str(part) != "decoder logits"}
# Minutes of export and build that show nothing new: the blocks of mit_b0 and of resnet, only more and wider; two by
# another name.
DEEPER = {f"encoder {name}" for name in ("mit", *PRESETS, "swin_transformer", "wide_resnet")} - {"encoder mit_b0"}
# The kit itself wires each encoder to fpn, and each decoder to a convolutional network; a transformer meets the others.
TRANSFORMER = "mit_b0"
PAIRED = sorted(set(registry.catalogue("decoder").plugins) - {"fpn", "logits"})


def rules_of(part):
    """The rules of a part; of the deeper ones those that need no graph."""
    rules = rules_for(PARTS[part].kind)
    if part not in DEEPER:
        return rules
    graph = {"export"}
    for rule in rules:  # each comes after those that it needs
        if graph.intersection(rule.needs):
            graph.add(rule.name)
    return [rule for rule in rules if rule.name not in graph]


@functools.lru_cache(maxsize=1)
def judge(part, partner=None):
    """A part's tests follow each other, so one model at a time is held."""
    return judge_of(PARTS[part], SMALL.get(part, {}), partner or PARTNER.get(part))


def expect_kept(outcome):
    if outcome.state == "skipped":
        pytest.skip(outcome.detail)
    assert outcome.state == "passed", f"{outcome.detail}\n{outcome.rule.sentence}\n{outcome.rule.fix}"


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        pytest.param(name, rule.name, marks=pytest.mark.xdist_group(name), id=f"{name.replace(' ', '-')}-{rule.name}")
        for name in PARTS
        for rule in rules_of(name)
    ],
)
def test_rule_is_kept(part, rule, monkeypatch):
    monkeypatch.setenv("SEGDEPLOY_FACTORIES", SMALL["encoder factory"]["function"])
    expect_kept(judge(part).outcome(rule))


@pytest.mark.parametrize("rule", ["labels", "tensorrt-lint", "tensorrt-build", "fp16", "int8"])
@pytest.mark.parametrize(
    "decoder", [pytest.param(name, marks=pytest.mark.xdist_group(f"{TRANSFORMER}-{name}")) for name in PAIRED]
)
def test_every_decoder_deploys_with_a_transformer(decoder, rule):
    expect_kept(judge(f"encoder {TRANSFORMER}", decoder).outcome(rule))


def test_something_is_registered():
    assert {"encoder timm", "encoder convnextv2", "decoder unet", "decoder segformer", "backend torch"} <= set(PARTS)
    assert [part.owner.distribution for part in parts("segdeploy")] == ["segdeploy"] * len(parts("segdeploy"))
