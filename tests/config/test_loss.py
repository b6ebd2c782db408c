import pytest

from segdeploy.config import parse_config
from segdeploy.config.loss import Boundary, CrossEntropy, Dice, Focal, Lovasz, Ohem
from segdeploy.errors import ConfigError

BASE = """\
input_features: [{name: image, type: image, encoder: unet}]
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [a, b]}
    decoder: unet
    loss: %s
"""


def losses(text):
    return parse_config(BASE % text).mask.losses


def mistake(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(BASE % text, "c.yaml")
    (line,) = str(caught.value).splitlines()
    return line.removeprefix("c.yaml:7: output_features[0].loss")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("softmax_cross_entropy", CrossEntropy()),
        ("{class_weights: auto}", CrossEntropy(class_weights="auto")),
        ("{type: focal, gamma: 3, class_weights: [1, 2]}", Focal(gamma=3, class_weights=(1, 2))),
        ("{type: focal, alpha: 0.25, weight: 2}", Focal(weight=2)),  # Ludwig does not use alpha for masks
        ("{type: dice, smooth: 0}", Dice(smooth=0)),
        ("lovasz_softmax", Lovasz()),
        ("{type: ohem, threshold: 0.6, min_kept: 9}", Ohem(threshold=0.6, min_kept=9)),
        ("{type: boundary, theta: 7}", Boundary(theta=7)),
    ],
)
def test_one(text, expected):
    assert losses(text) == (expected,)
    assert losses(f"[{text}]") == (expected,)


def test_a_list():
    text = "[softmax_cross_entropy, {type: dice, weight: 0.5, class_weights: {a: 0, b: 1}}]"
    config = parse_config(BASE % text)
    assert config.mask.losses == (CrossEntropy(), Dice(weight=0.5, class_weights={"a": 0, "b": 1}))
    assert parse_config(config.model_dump_json()) == config
    assert parse_config(BASE % text, overrides=["loss.1.weight=2"]).mask.losses[1].weight == 2
    assert parse_config(BASE % text, overrides=["loss=lovasz_softmax"]).mask.losses == (Lovasz(),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{type: dise}", ".type: no type is named 'dise'; did you mean 'dice'?"),
        ("{type: focal, gama: 2}", ".gama: unknown key; did you mean 'gamma'?"),
        ("{type: dice, label_smoothing: 0.1}", ".label_smoothing: unknown key; known: class_weights, smooth"),
        ("{type: focal, gamma: -1}", ".gamma: expected greater than or equal to 0, got -1"),
        ("{type: dice, weight: 0}", ".weight: expected greater than 0, got 0"),
        ("{type: boundary, theta: 4}", ".theta: expected an odd number of pixels, got 4"),
        ("[]", ": expected an object or at least 1 item, not 0"),
        ("3", ": expected an object or a valid array, got 3"),
        ("[dice, {type: focal, gama: 2}]", "[1].gama: unknown key; did you mean 'gamma'?"),
        ("[dice, {type: dise}]", "[1].type: no type is named 'dise'; did you mean 'dice'?"),
        ("[dice, 3]", "[1]: expected an object, got 3"),
        ("{type: dice, class_weights: [1]}", ".class_weights: expected one weight for each of 2 classes, got 1"),
        ("[dice, {class_weights: {a: 1}}]", "[1].class_weights: no weight for 'b'"),
        ("{type: dice, robust_lambda: 1}", ".robust_lambda: 1 has no counterpart in segdeploy"),
        ("[dice, {confidence_penalty: 1}]", "[1].confidence_penalty: 1 has no counterpart in segdeploy"),
    ],
)
def test_mistakes(text, said):
    assert mistake(text).startswith(said)


def test_lenient_drops_unknown_keys_of_one_in_a_list():
    assert parse_config(BASE % "[dice, {type: focal, gama: 2}]", lenient=True).mask.losses == (Dice(), Focal())
