import pytest

from segdeploy.config import parse_config
from segdeploy.config.optimizer import RULES, Optimizer
from segdeploy.config.refused import REFUSED_OPTIMIZERS
from segdeploy.errors import ConfigError

BASE = """\
input_features: [{name: image, type: image, encoder: unet}]
output_features: [{name: mask, type: image, preprocessing: {num_classes: 2}, decoder: unet}]
trainer: {optimizer: %s}
"""


def rule(text):
    return parse_config(BASE % text).trainer.optimizer


@pytest.mark.parametrize("name", RULES)
def test_each_rule_has_its_own_defaults(name):
    found = rule(name)
    assert found.settings == RULES[name]
    assert rule(found.model_dump_json()) == found


def test_keys_that_are_given_win():
    assert rule("{type: adan, betas: [0.9, 0.8, 0.7]}").settings == {"betas": (0.9, 0.8, 0.7), "eps": 1e-8}
    found = rule("{type: rmsprop, momentum: 0.9, centered: true}").settings
    assert found == {"alpha": 0.99, "eps": 1e-8, "momentum": 0.9, "centered": True}
    assert rule("{type: muon, nesterov: false}").settings["nesterov"] is False


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_what_earlier_versions_wrote_for_every_rule_is_taken(name):
    kept = {"type": name, "weight_decay": None, "betas": [0.9, 0.999], "eps": 1e-8, "momentum": 0.0, "nesterov": False}
    assert Optimizer.model_validate_json(str(kept).replace("'", '"').replace("None", "null").replace("False", "false"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{type: adm}", ".type: expected 'adamw', 'adam', 'sgd', "),
        ("{type: adam, rho: 0.5}", ": rho belongs to adadelta; adam has betas, eps, amsgrad"),
        ("{type: lion, eps: 1e-6}", ": eps belongs to adamw, adam, adadelta, "),
        ("{type: adan, betas: [0.9, 0.99]}", ": adan has 3 betas, found 2"),
        ("{betas: [0.9, 0.99, 0.99]}", ": adamw has 2 betas, found 3"),
        ("{type: lars, nesterov: true}", ": nesterov needs a momentum above 0"),
        ("{type: sgd, nesterov: true, momentum: 0.9, dampening: 0.1}", ": nesterov needs a dampening of 0"),
        ("{layer_decay: 1.1}", ".layer_decay: expected less than or equal to 1, got 1.1"),
        ("{encoder_lr_scale: 0}", ".encoder_lr_scale: expected greater than 0, got 0"),
        ("{type: adafactor, relative_step: true}", ".relative_step: True has no counterpart in segdeploy"),
        ("schedule_free_adamw", ".type: schedule_free_adamw cannot be had here: it validates other weights"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(BASE % text, "c.yaml")
    assert str(caught.value).startswith(f"c.yaml:3: trainer.optimizer{said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED_OPTIMIZERS)
def test_refused_rules_name_one_that_is_there(name):
    assert REFUSED_OPTIMIZERS[name].rsplit("nearest: ", 1)[1].split(",")[0] in RULES
    assert name not in RULES


def test_limits_on_the_gradient():
    text = BASE.replace("optimizer", "gradient_clipping")
    clipping = parse_config(text % "{clipglobalnorm: null, clipnorm: 2, clipvalue: 0.5}").trainer.gradient_clipping
    assert (clipping.clipnorm, clipping.clipvalue, clipping.limits) == (2, 0.5, True)
    assert not parse_config(text % "null").trainer.gradient_clipping.limits


def test_patterns_of_what_is_frozen():
    text = BASE.replace("optimizer", "layers_to_freeze_regex")
    assert parse_config(text % "null").trainer.frozen_patterns == ()
    assert parse_config(text % "encoder\\.body").trainer.frozen_patterns == ("encoder\\.body",)
    assert parse_config(text % "[a, b]").trainer.frozen_patterns == ("a", "b")
    with pytest.raises(ConfigError, match=r"c:3: trainer\.layers_to_freeze_regex\[1\]: expected a regular expression"):
        parse_config(text % "[a, '(']", "c")
