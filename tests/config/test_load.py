from pathlib import Path

import pytest

from segdeploy.config import load_config, parse_config
from segdeploy.errors import ConfigError

BASE = """\
input_features:
  - name: image
    type: image
    preprocessing: {height: 64, width: 96}
    augmentation:
      - {type: random_horizontal_flip}
      - {type: random_scale, min: 0.5}
    encoder: {type: timm, model_name: resnet18}
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [sky, road, car]}
    decoder: {type: unet}
trainer: {epochs: 3}
"""
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IMAGE, MASK = "input_features[0]", "output_features[0]"


def changed(*pairs):
    """BASE with the first words of each pair replaced by the second."""
    text = BASE
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def mistakes(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml", overrides)
    return str(caught.value).splitlines()


def test_all_mistakes_at_once_each_with_its_place():
    text = changed(
        ("name: image\n    type: image", "name: image\n    type: imag"),
        ("{height: 64, width: 96}", "{height: 4, width: 96}"),
        ("augmentation:", "augmentations:"),
        ("model_name: resnet18", "model_nam: resnet18"),
        ("{type: unet}", "{type: unet, channels: [4], chanels: [8]}"),
        ("{epochs: 3}", "{epochs: 0, batch_sise: 4, optimizer: {betas: [0.9]}}"),
    )
    assert set(mistakes(f"{text}trianer: {{}}")) == {
        f"c.yaml:3: {IMAGE}.type: expected 'image', got 'imag'",
        f"c.yaml:5: {IMAGE}.augmentations: unknown key; did you mean 'augmentation'?",
        f"c.yaml:8: {IMAGE}.encoder.model_nam: unknown key; did you mean 'model_name'?",
        f"c.yaml:4: {IMAGE}.preprocessing.height: expected greater than or equal to 16, got 4",
        f"c.yaml:13: {MASK}.decoder.channels[0]: expected greater than or equal to 8, got 4",
        f"c.yaml:13: {MASK}.decoder.chanels: unknown key; did you mean 'channels'?",
        "c.yaml:14: trainer.epochs: expected greater than 0, got 0",
        "c.yaml:14: trainer.batch_sise: unknown key; did you mean 'batch_size'?",
        "c.yaml:14: trainer.optimizer.betas: expected at least 2 items, not 1",
        "c.yaml:15: trianer: unknown key; did you mean 'trainer'?",
    }


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("{type: random_rotat}", ".type: no type is named 'random_rotat'; did you mean 'random_rotate'?"),
        ("{typ: random_crop}", ".type: is required"),
        ("{type: random_color, britness: 0.1}", ".britness: unknown key; did you mean 'brightness'?"),
        (
            "{type: random_color, min: 1}",
            ".min: unknown key; known: brightness, contrast, hue, probability, saturation, type",
        ),
        ("{type: random_crop, height: 64}", ".width: is required"),
        ("{type: random_scale, min: 3}", ": min 3.0 is above max 2.0"),
        ("random_crop", ": expected an object, got 'random_crop'"),
    ],
)
def test_mistakes_inside_a_discriminated_union(item, said):
    assert mistakes(changed(("{type: random_scale, min: 0.5}", item))) == [f"c.yaml:7: {IMAGE}.augmentation[1]{said}"]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("[sky, {nam: road}]", ["[1].name: is required", "[1].nam: unknown key; did you mean 'name'?"]),
        ("[sky, 3]", ["[1]: expected a valid string or an object, got 3"]),
        ("[sky, {name: a, color: [0, 0, 256]}]", ["[1].color[2]: expected less than or equal to 255, got 256"]),
        ("[sky]", [": expected at least 2 items, not 1"]),
    ],
)
def test_mistakes_inside_a_plain_union(classes, said):
    head = f"c.yaml:12: {MASK}.preprocessing.classes"
    assert mistakes(changed(("[sky, road, car]", classes))) == [head + line for line in said]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("{classes: [a, b, c], ignore_index: 2}", "ignore_index 2 is the id of class 'c'; use a value from 3 to 255"),
        ("{classes: [a, b, c], num_classes: 2}", "num_classes is 2, but 3 classes are listed"),
        ("{classes: [a, {name: b, id: 2}]}", "class 'b' has id 2, but stands at place 1"),
        ("{classes: [a, a]}", "class names must differ"),
        ("{ignore_index: 255}", "needs `classes` (a list of names) or `num_classes`"),
    ],
)
def test_classes_that_contradict_themselves(keys, said):
    (line,) = mistakes(changed(("{classes: [sky, road, car]}", keys)))
    assert line.startswith(f"c.yaml:12: {MASK}.preprocessing: {said}")


@pytest.mark.parametrize(
    ("weights", "place", "said"),
    [
        ("[1, 2]", "", "expected one weight for each of 3 classes, got 2"),
        ("[1, -1, 2]", "[1]", "expected greater than or equal to 0, got -1"),
        (
            "{sky: 1, raod: 2}",
            "",
            "no class is named 'raod'; did you mean 'road'?; no weight for 'road'; no weight for",
        ),
        ("{sky: 1, road: x, car: 1}", ".road", "expected a valid number, got 'x'"),
        ("automatic", "", "expected a valid array or an object or 'auto', got 'automatic'"),
    ],
)
def test_mistakes_in_class_weights(weights, place, said):
    (line,) = mistakes(changed(("{type: unet}", f"{{type: unet}}\n    loss: {{class_weights: {weights}}}")))
    assert line.startswith(f"c.yaml:14: {MASK}.loss.class_weights{place}: {said}")


@pytest.mark.parametrize(
    ("weights", "value"),
    [
        ("[1, 2, 0.5]", (1, 2, 0.5)),
        ("{sky: 1, road: 2.0, car: 0}", {"sky": 1, "road": 2, "car": 0}),
        ("auto", "auto"),
        ("null", None),
    ],
)
def test_class_weights(weights, value):
    assert parse_config(BASE, overrides=[f"loss.class_weights={weights}"]).mask.loss.class_weights == value


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trainer.epochs", '"3"', "expected a valid integer, got '3'"),
        ("trainer.epochs", "3.0", "expected a valid integer, got 3.0"),
        ("trainer.epochs", "true", "expected a valid integer, got True"),
        ("trainer.use_mixed_precision", "1", "expected a valid boolean or 'bf16' or 'fp16', got 1"),
        ("trainer.use_mixed_precision", "yes", "expected a valid boolean or 'bf16' or 'fp16', got 'yes'"),
        ("trainer.learning_rate", '"1e-3"', "expected a valid number or 'auto', got '1e-3'"),
        ("trainer.learning_rate", "1e999", "expected a finite number or 'auto', got inf"),
        ("trainer.seed", "1" * 5000, "expected a valid integer, got '1111"),
        ("preprocessing.split.probabilities", "[0, 0, 0]", "probabilities add up to 0, expected 1"),
        ("preprocessing.split.probabilities", "[0.8, 0.1, 0.2]", "probabilities add up to 1.1, expected 1"),
    ],
)
def test_types_and_bounds_are_strict(key, value, said):
    (line,) = mistakes(BASE, f"{key}={value}")
    assert said in line
    assert f": {key.removesuffix('.probabilities')}: " in line


def test_whole_numbers_serve_as_floats():
    assert parse_config(BASE, overrides=["trainer.learning_rate=1"]).trainer.learning_rate == 1.0


def test_missing_required():
    assert mistakes("trainer: {}") == [
        "c.yaml:1: input_features: is required",
        "c.yaml:1: output_features: is required",
    ]
    assert mistakes(changed(("height: 64, ", ""))) == [
        f"c.yaml:4: {IMAGE}.preprocessing: needs `height` beside `width`; leave out both to take the images' own size"
    ]
    (line,) = mistakes(BASE, "encoder={model_name: x}")
    assert line == f"--set encoder={{model_name: x}}: {IMAGE}.encoder: needs a `type`"


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("encoder", "tim", "no encoder is named 'tim'; did you mean 'timm'?"),
        ("decoder", "une", "no decoder is named 'une'; did you mean 'unet'?"),
        ("decoder", "zzz", "no decoder is named 'zzz'; known: "),
    ],
)
def test_unknown_plugin(key, name, said):
    (line,) = mistakes(BASE, f"{key}.type={name}")
    assert f".{key}.type: {said}" in line


def test_defaults_of_plugins_are_filled_in():
    config = parse_config(BASE)
    expected = {"type": "timm", "use_pretrained": True, "weights": None, "trainable": True, "model_name": "resnet18"}
    assert config.image.encoder == expected | {"output_stride": 32, "out_indices": None}
    expected = {"type": "unet", "channels": [256, 128, 64, 32, 16], "num_stages": None, "conv_norm": "batch"}
    assert config.mask.decoder == expected | {"upsample_mode": "nearest", "full_size": False}
    assert parse_config(config.model_dump_json()) == config  # a run's config.json is a configuration


@pytest.mark.parametrize(
    ("word", "read", "expected"),
    [
        ("encoder.use_pretrained=false", lambda c: c.image.encoder["use_pretrained"], False),
        ("decoder={type: fpn}", lambda c: c.mask.decoder["type"], "fpn"),
        ("loss.label_smoothing=0.1", lambda c: c.mask.loss.label_smoothing, 0.1),
        ("augmentation.1.max=1e0", lambda c: c.image.augmentation[1].max, 1.0),
        ("augmentation[1].max=3", lambda c: c.image.augmentation[1].max, 3.0),
        ("augmentation=[]", lambda c: c.image.augmentation, ()),
        ("input_features.0.preprocessing.height=32", lambda c: c.image.preprocessing.height, 32),
        ("trainer.epochs=5", lambda c: c.trainer.epochs, 5),
        ("trainer.learning_rate_scheduler.decay=null", lambda c: c.trainer.learning_rate_scheduler.decay, None),
        ("export.verify_batches=[1, 2]", lambda c: c.export.verify_batches, (1, 2)),
        ("input_features.0.column=a=b", lambda c: c.image.column, "a=b"),
    ],
)
def test_set(word, read, expected):
    assert read(parse_config(BASE, overrides=[word])) == expected


def test_set_takes_words_in_order_and_into_empty_keys():
    config = parse_config(BASE + "benchmark:\n", overrides=["benchmark.rounds=2", "benchmark.rounds=7"])
    assert config.benchmark.rounds == 7


def test_set_into_the_short_form():
    text = changed(("{type: timm, model_name: resnet18}", "convnextv2"), ("{type: unet}", "unet"))
    config = parse_config(text, overrides=["encoder.model_name=convnextv2_atto", "decoder.channels=[64]"])
    assert config.image.encoder["model_name"] == "convnextv2_atto"
    assert (config.mask.decoder["type"], config.mask.decoder["channels"]) == ("unet", [64])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.epochs", "--set trainer.epochs: expected KEY=VALUE, such as trainer.epochs=10"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("augmentation.2.min=1", f"--set augmentation.2.min=1: there is no {IMAGE}.augmentation[2].min in c.yaml"),
        ("input_features.1=x", "--set input_features.1=x: there is no input_features[1] in c.yaml"),
        ("trainer.epochs.x=1", "there is no trainer.epochs.x in c.yaml"),
        ("trainer.epochs={", "--set trainer.epochs:1: not valid YAML"),
        ("trainer.epochs=!!python/name:os.system", "--set trainer.epochs:1: the tag "),
        ("decoder.chanels=[8]", f"--set decoder.chanels=[8]: {MASK}.decoder.chanels: unknown key; did you mean"),
        ("trainer.epochs=0", "--set trainer.epochs=0: trainer.epochs: expected greater than 0, got 0"),
        ("encoder={type: timm, model_name: resnet81}", f"--set encoder={{type: timm, model_name: resnet81}}: {IMAGE}"),
        ("encoder.model_name=mobilnetv3_large_100", "it has mobilenetv3_large_100"),
        ("encoder={type: timm, model_name: resnet81}", "timm has no model 'resnet81'; it has resnet"),
        ("epochs=3", "--set epochs=3: epochs: unknown key; did you mean 'trainer.epochs'?"),
        ("classes=[a]", f"unknown key; did you mean '{MASK}.preprocessing.classes'?"),
        ("xyz=1", "xyz: unknown key; known: benchmark, data, "),
        ("trainr.epochs=3", "trainr: unknown key; did you mean 'trainer'?"),
    ],
)
def test_set_in_the_wrong_form(word, said):
    (line,) = mistakes(BASE, word)
    assert said in line
    assert line.count("resnet81'") <= 1


def test_the_last_word_for_a_value_is_blamed():
    (line,) = mistakes(BASE, "trainer.epochs=0", "trainer={epochs: -1}")
    assert line.startswith("--set trainer={epochs: -1}: ")
    assert line.endswith("got -1")


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.yaml")), ids=lambda path: path.name)
def test_configurations_of_the_repository_load(path):
    assert load_config(path).mask.preprocessing.class_map()


def test_classes_with_values_and_several_colours():
    spelled = (
        "[{name: sky, value: 7, color: [1, 2, 3]}, "
        "{name: road, value: [8, 9], mask_colors: [[4, 4, 4], [5, 5, 5]]}, {name: car, value: 11}]"
    )
    classes = parse_config(changed(("[sky, road, car]", spelled))).mask.preprocessing.class_map()
    assert classes.values == ((7,), (8, 9), (11,))
    assert classes.colors[:2] == ((1, 2, 3), (4, 4, 4))
    assert classes.mask_colors[:2] == (((1, 2, 3),), ((4, 4, 4), (5, 5, 5)))


def test_every_class_has_a_value_or_none_has():
    found = mistakes(changed(("[sky, road, car]", "[{name: sky, value: 7}, road, car]")))
    assert len(found) == 1
    assert "class 'sky' has a `value` and class 'road' has none" in found[0]


def test_one_thread_count_of_the_benchmark_needs_no_list():
    given = {text: parse_config(f"{BASE}benchmark: {{threads: {text}}}").benchmark.threads for text in ("2", "[1, 2]")}
    assert given == {"2": (2,), "[1, 2]": (1, 2)}
    with pytest.raises(ConfigError, match="threads"):
        parse_config(f"{BASE}benchmark: {{threads: true}}")
