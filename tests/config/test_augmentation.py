"""`augmentation` as it is written: Ludwig's spellings, our steps, and mistakes as one line each."""

import pytest

from segdeploy.config import parse_config
from segdeploy.errors import ConfigError

CONFIG = """
input_features:
  - name: image
    type: image
    preprocessing: {height: 64, width: 64}
    augmentation: AUGMENTATION
    encoder: unet
output_features:
  - {name: mask, type: image, preprocessing: {num_classes: 2}, decoder: unet}
"""


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("false", []),
        ("true", ["random_horizontal_flip", "random_rotate"]),
        ("[]", []),
        ("[{type: random_blur}, {type: random_brightness, max: 1.5}]", ["random_blur", "random_brightness"]),
    ],
)
def test_augmentation_as_ludwig_writes_it(written, steps):
    config = parse_config(CONFIG.replace("AUGMENTATION", written))
    assert [s.type for s in config.image.augmentation] == steps
    assert all(s.probability == 0.5 for s in config.image.augmentation)
    again = type(config).model_validate_json(config.model_dump_json())
    assert again.image.augmentation == config.image.augmentation


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[{type: random_blur, kernel_size: 4}]", "kernel_size 4 is even; expected an odd number"),
        ("[{type: random_contrast, min: 3}]", "min 3.0 is above max 2.0"),
        ("[{type: random_blurr}]", "no type is named 'random_blurr'; did you mean 'random_blur'?"),
        ("[{type: random_brightness, maxx: 1}]", "augmentation[0].maxx: unknown key; did you mean 'max'?"),
        ("maybe", "expected true, false or a list of steps, got 'maybe'"),
    ],
)
def test_mistakes_in_augmentation_are_one_line(written, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG.replace("AUGMENTATION", written), "c.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("c.yaml:6: input_features[0].augmentation")
    assert len(str(caught.value).splitlines()) == 1


STEPS = """[
        {type: random_crop, height: 32, width: 48, cat_max_ratio: 0.75, rare_class_probability: 0.5},
        {type: random_color, hue: 0.1, probability: 0.8}, {type: random_gamma}, {type: random_grayscale},
        {type: auto_augmentation, method: rand_augment}, {type: auto_augmentation},
        {type: random_cut_mix, max: 1}, {type: random_copy_paste, classes: [class_1], probability: 0.3},
        {type: random_copy_paste, max_frequency: 0.4}]"""


def test_all_steps_are_kept_in_a_run_folder():
    config = parse_config(CONFIG.replace("AUGMENTATION", STEPS))
    steps = config.image.augmentation
    assert (steps[0].cat_max_ratio, steps[0].rare_class_probability) == (0.75, 0.5)
    assert [s.method for s in steps if s.type == "auto_augmentation"] == ["rand_augment", "trivial_augment"]
    assert [s.classes for s in steps if s.type == "random_copy_paste"] == [("class_1",), "rare"]
    again = type(config).model_validate_json(config.model_dump_json())
    assert again.image.augmentation == steps


def test_new_keys_are_off_unless_they_are_set():
    written = "[{type: random_crop, height: 32, width: 48}, {type: random_color}]"
    crop, color = parse_config(CONFIG.replace("AUGMENTATION", written)).image.augmentation
    assert (crop.cat_max_ratio, crop.rare_class_probability, color.hue, color.probability) == (1.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("written", "place", "said"),
    [
        ("[{type: random_rotate}, {type: random_rotate, degree: 5}]", "[1]", "random_rotate may stand once"),
        ("[{type: random_crop, height: 32, width: 32, cat_max_ratio: 0}]", "[0].cat_max_ratio", "greater than 0"),
        ("[{type: random_color, hue: 0.6}]", "[0].hue", "less than or equal to 0.5"),
        ("[{type: random_gamma, min: 0}]", "[0].min", "greater than 0"),
        ("[{type: random_cut_mix, min: 0.6}]", "[0]", "min 0.6 is above max 0.5"),
        ("[{type: auto_augmentation, method: autoaugment}]", "[0].method", "'auto_augment'"),
        ("[{type: random_copy_paste, classes: []}]", "[0].classes", "at least 1"),
        ("[{type: random_copy_paste, classes: [class_2]}]", "[0].classes", "no class is named 'class_2'; did you mean"),
    ],
)
def test_nonsense_is_refused_where_it_stands(written, place, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG.replace("AUGMENTATION", written), "c.yaml")
    assert str(caught.value).startswith(f"c.yaml:6: input_features[0].augmentation{place}: ")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("step", ["random_cut_mix", "random_copy_paste"])
def test_a_batch_of_one_has_nothing_to_mix(step):
    text = CONFIG.replace("AUGMENTATION", f"[{{type: {step}}}]")
    parse_config(text)
    with pytest.raises(ConfigError, match=rf"augmentation\[0\]: {step} needs another sample in the batch"):
        parse_config(text + "trainer: {batch_size: 1}\n")
