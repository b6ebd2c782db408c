"""Ludwig's spellings: each row of what its page and its source disagree on, old forms, and keys without effect."""

import logging
from pathlib import Path

import pytest

from segdeploy.config import config_from_dict, load_config, parse_config
from segdeploy.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
BASE = """\
input_features:
  - name: image
    type: image
    encoder: {type: timm, model_name: resnet18}
output_features:
  - name: mask
    type: image
    preprocessing: {num_classes: 3}
    decoder: {type: segformer}
"""
IMAGE, MASK = "input_features[0]", "output_features[0]"


def mistakes(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml", overrides)
    return str(caught.value).splitlines()


def sized(config):
    return config.image.preprocessing.height, config.image.preprocessing.width


# The rows of the comparison of page and source.


@pytest.mark.parametrize("section", ["preprocessing: {image: %s}", "defaults: {image: {preprocessing: %s}}"])
def test_sizes_for_all_images(section):
    config = parse_config(BASE + section % "{height: 96, width: 128, num_channels: 3}")
    assert sized(config) == (96, 128)
    assert config.preprocessing.split is None


def test_a_features_own_size_comes_before_that_for_all():
    own = BASE.replace("    encoder:", "    preprocessing: {height: 64, width: 64}\n    encoder:")
    assert sized(parse_config(own + "preprocessing: {image: {height: 96, width: 96}}")) == (64, 64)


def test_the_masks_size_is_the_images():
    text = BASE.replace("{num_classes: 3}", "{num_classes: 3, height: 64, width: 96}")
    assert sized(parse_config(text)) == (64, 96)
    same = text.replace("    encoder:", "    preprocessing: {height: 64, width: 96}\n    encoder:")
    assert sized(parse_config(same)) == (64, 96)
    (line,) = mistakes(same.replace("{height: 64, width: 96}", "{height: 32, width: 96}", 1))
    assert line == (
        f"c.yaml:9: {MASK}.preprocessing.height: is 64, but {IMAGE}.preprocessing.height is 32; "
        "they mean the same, so keep one of them"
    )


def test_channels_are_three():
    (line,) = mistakes(BASE + "preprocessing: {image: {height: 96, width: 96, num_channels: 1}}")
    assert line.startswith("c.yaml:10: preprocessing.image.num_channels: 1 has no counterpart in segdeploy: ")


@pytest.mark.parametrize("count", [3, 150])
def test_num_classes_in_the_decoder(count):
    text = BASE.replace("    preprocessing: {num_classes: 3}\n", "")
    config = parse_config(text.replace("{type: segformer}", f"{{type: segformer, num_classes: {count}}}"))
    assert len(config.mask.preprocessing.class_map()) == count
    assert "num_classes" not in config.mask.decoder


def test_num_classes_twice():
    text = BASE.replace("{type: segformer}", "{type: segformer, num_classes: %d}")
    assert len(parse_config(text % 3).mask.preprocessing.names) == 3
    (line,) = mistakes(text % 4)
    assert line == (
        f"c.yaml:9: {MASK}.decoder.num_classes: is 4, but {MASK}.preprocessing.num_classes is 3; "
        "they mean the same, so keep one of them"
    )


def test_num_classes_against_a_list_of_names():
    text = BASE.replace("{num_classes: 3}", "{classes: [a, b]}").replace("segformer}", "segformer, num_classes: 3}")
    (line,) = mistakes(text)
    assert "num_classes is 3, but 2 classes are listed" in line


def test_convnextv2_with_unet():
    config = load_config(GOLDEN / "page_unet.yaml")
    assert config.image.encoder["model_name"] == "convnextv2_tiny"
    assert config.mask.decoder["type"] == "unet"


@pytest.mark.parametrize("name", ["vit", "swin", "swin_transformer"])
def test_encoders_of_the_page(name):
    text = (GOLDEN / "page_segformer.yaml").read_text().replace("type: vit ", f"type: {name} ")
    assert parse_config(text).image.encoder["type"] == name


def test_encoders_that_cannot_segment():
    (line,) = mistakes(BASE.replace("{type: timm, model_name: resnet18}", "{type: alexnet}"))
    assert line == (
        f"c.yaml:4: {IMAGE}.encoder.type: alexnet cannot segment: "
        "it has one coarse map and timm does not have it; nearest: vgg"
    )


def test_hidden_dim():
    config = parse_config(BASE.replace("{type: segformer}", "{type: segformer, hidden_dim: 64}"))
    assert config.mask.decoder["hidden_size"] == 64
    (line,) = mistakes(BASE.replace("{type: segformer}", "{type: segformer, hidden_dim: 64, hidden_size: 32}"))
    assert "decoder.hidden_dim: is 64, but" in line
    assert "decoder.hidden_size is 32" in line
    (line,) = mistakes(BASE.replace("{type: segformer}", "{type: segformer, hidden_dim: 2}"))
    assert line == f"c.yaml:9: {MASK}.decoder.hidden_dim: expected greater than or equal to 8, got 2"
    assert "hidden_dim: unknown key" in mistakes(BASE.replace("{type: segformer}", "{type: fpn, hidden_dim: 64}"))[0]


def test_upsample_mode():
    for mode in ("nearest", "bilinear"):
        config = parse_config(BASE.replace("{type: segformer}", f"{{type: fpn, upsample_mode: {mode}}}"))
        assert config.mask.decoder["upsample_mode"] == mode


def test_lr_in_the_optimizer():
    assert parse_config(BASE + "trainer: {optimizer: {type: adamw, lr: 3.0e-4}}").trainer.learning_rate == 3e-4
    both = "trainer: {learning_rate: %s, optimizer: {type: adamw, lr: 3.0e-4}}"
    assert parse_config(BASE + both % "3e-4").trainer.learning_rate == 3e-4
    (line,) = mistakes(BASE + both % "1e-3")
    assert line.startswith("c.yaml:10: trainer.optimizer.lr: is 0.0003, but trainer.learning_rate is 0.001; ")


def test_type_of_the_scheduler():
    scheduler = "trainer: {learning_rate_scheduler: %s}"
    found = parse_config(BASE + scheduler % "{type: cosine}").trainer.learning_rate_scheduler
    assert (found.decay, found.t_0) == ("cosine", None)
    assert parse_config(BASE + scheduler % "{type: cosine, decay: cosine}").trainer.learning_rate_scheduler == found
    line = mistakes(BASE + scheduler % "{type: cosine, decay: linear}")[0]
    assert "learning_rate_scheduler.type: is 'cosine', but trainer.learning_rate_scheduler.decay is 'linear'" in line
    restarts = parse_config(BASE + scheduler % "{decay: cosine, t_0: 100, t_mult: 2}").trainer.learning_rate_scheduler
    assert (restarts.t_0, restarts.t_mult) == (100, 2)


@pytest.mark.parametrize("weights", ["[1, 2, 0.5]", "{class_0: 1, class_1: 2, class_2: 0.5}", "auto"])
def test_class_weights(weights):
    config = parse_config(BASE + f"    loss: {{type: softmax_cross_entropy, class_weights: {weights}}}")
    assert config.mask.loss.class_weights


def test_class_weights_for_counted_classes_wait_for_the_masks():
    text = BASE.replace("{num_classes: 3}", "{num_classes: auto}") + "    loss: {class_weights: [1, 2]}"
    assert parse_config(text).mask.loss.class_weights == (1, 2)


# Forms that Ludwig still takes.


def test_short_and_old_forms():
    text = """
input_features:
  - {name: image, type: image, encoder: unet, num_stages: 3}
output_features:
  - name: mask
    type: image
    preprocessing: {num_classes: 2}
    decoder: fpn
    num_channels: 64
    loss: softmax_cross_entropy
training: {epochs: 7, optimizer: adam}
preprocessing: {split_probabilities: [0.5, 0.25, 0.25], force_split: true}
"""
    config = parse_config(text)
    assert config.image.encoder["num_stages"] == 3
    assert config.mask.decoder["num_channels"] == 64
    assert (config.trainer.epochs, config.trainer.optimizer.type) == (7, "adam")
    assert (config.preprocessing.split.type, config.preprocessing.split.probabilities) == ("random", (0.5, 0.25, 0.25))


def test_training_and_trainer():
    assert parse_config(BASE + "training: {epochs: 7}\ntrainer: {batch_size: 2}").trainer.epochs == 7
    (line,) = mistakes(BASE + "training: {epochs: 7}\ntrainer: {epochs: 8}")
    assert line.startswith("c.yaml:10: training.epochs: is 7, but trainer.epochs is 8")


def test_one_depth_for_both_halves_of_a_unet():
    text = BASE.replace("{type: timm, model_name: resnet18}", "%s").replace("{type: segformer}", "%s")
    for stages in (2, 3, 5):
        config = parse_config(text % ("{type: unet}", f"{{type: unet, num_stages: {stages}}}"))
        assert config.image.encoder["num_stages"] == config.mask.decoder["num_stages"] == stages
    config = parse_config(text % ("{type: unet, num_stages: 4}", "{type: unet, num_stages: 2}"))
    assert config.image.encoder["num_stages"] == 4


def test_defaults_for_encoder_decoder_and_loss():
    text = """
input_features: [{name: image, type: image}]
output_features: [{name: mask, type: image, preprocessing: {num_classes: 2}, decoder: {num_channels: 32}}]
defaults:
  image:
    encoder: unet
    decoder: {type: fpn, num_channels: 64}
    loss: {type: softmax_cross_entropy, label_smoothing: 0.1}
"""
    config = parse_config(text)
    assert config.image.encoder["type"] == "unet"
    assert (config.mask.decoder["type"], config.mask.decoder["num_channels"]) == ("fpn", 32)
    assert config.mask.loss.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("{infer_image_num_classes: true}", "auto"),
        ("{infer_image_num_classes: true, num_classes: 32}", 32),
        ("{infer_image_num_classes: false, num_classes: 4}", 4),
    ],
)
def test_counted_classes(keys, expected):
    assert parse_config(BASE.replace("{num_classes: 3}", keys)).mask.preprocessing.num_classes == expected


def test_normalisation_and_resizing():
    keys = "{height: 96, width: 64, standardize_image: imagenet1k, resize_method: interpolate}"
    found = parse_config(BASE + f"preprocessing: {{image: {keys}}}").image.preprocessing
    assert (found.mean, found.std, found.resize) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "stretch")
    equal = "{height: 96, width: 64, requires_equal_dimensions: true}"
    assert sized(parse_config(BASE + f"preprocessing: {{image: {equal}}}")) == (64, 64)
    (line,) = mistakes(BASE + "preprocessing: {image: {resize_method: crop_or_pad}}")
    assert "preprocessing.image.resize_method: 'crop_or_pad' has no counterpart" in line


def test_size_from_the_images():
    found = parse_config((GOLDEN / "config_camseq.yaml").read_text()).image.preprocessing
    assert (found.height, found.width) == (None, None)
    assert (found.infer_image_max_height, found.infer_image_max_width) == (1024, 1024)


def test_choices_left_to_the_program():
    left = "batch_size: null, learning_rate: null, effective_batch_size: null, gradient_accumulation_steps: null"
    trainer = parse_config(BASE + "trainer: {batch_size: auto, learning_rate: auto, max_batch_size: 4}").trainer
    assert (trainer.batch_size, trainer.learning_rate, trainer.max_batch_size) == ("auto", "auto", 4)
    assert parse_config(BASE + f"trainer: {{{left}}}").trainer == parse_config(BASE).trainer
    for wanted in ("samples_per_step", "peak_learning_rate"):
        with pytest.raises(ValueError, match="auto is settled when training begins"):
            getattr(trainer, wanted)


def test_ludwigs_keys_of_steps_are_taken():
    text = "trainer: {gradient_accumulation_steps: 4, checkpoints_per_epoch: 2, steps_per_checkpoint: 0, compile: true}"
    trainer = parse_config(BASE + text).trainer
    assert (trainer.gradient_accumulation_steps, trainer.effective_batch_size) == (4, "auto")
    assert (trainer.checkpoints_per_epoch, trainer.steps_per_checkpoint, trainer.compile) == (2, 0, True)


# Keys that mean nothing here.


def test_one_note_names_the_keys_without_effect(caplog):
    with caplog.at_level(logging.INFO, logger="segdeploy"):
        config = load_config(GOLDEN / "config_unet_depth.yaml")
    (record,) = caplog.records
    assert record.message == (
        f"{GOLDEN / 'config_unet_depth.yaml'}: without effect in segdeploy: combiner, "
        f"{IMAGE}.preprocessing.num_processes, {MASK}.preprocessing.num_processes, "
        f"{MASK}.decoder.num_fc_layers"
    )
    assert config.mask.decoder["num_stages"] == 4


def test_no_note_without_such_keys(caplog):
    caplog.set_level(logging.INFO, logger="segdeploy")
    parse_config(BASE + "preprocessing: {image: {height: 32, width: 32, num_channels: 3}}\nmodel_type: ecd\n")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model_type: llm", "model_type: 'llm' has no counterpart"),
        ("preset: medium_quality", "preset: 'medium_quality' has no counterpart"),
        ("preprocessing: {sample_ratio: 0.5}", "preprocessing.sample_ratio: 0.5 has no counterpart"),
        ("trainer: {train_steps: 10}", "use trainer.epochs"),
        ("trainer: {regularization_lambda: 0.1}", "use trainer.optimizer.weight_decay"),
        ("trainer: {validation_metric: loss}", "the best epoch is that of the highest mean_iou"),
        ("trainer: {model_soup: greedy}", "use trainer.ema_decay"),
        ("    loss: {robust_lambda: 1}", "loss.robust_lambda: 1 has no counterpart"),
        ("    dependencies: [other]", "there is one output feature"),
    ],
)
def test_refused_where_ignoring_would_change_the_result(line, said):
    (found,) = mistakes(BASE + line)
    assert said in found
    assert found.startswith("c.yaml:10: ")


@pytest.mark.parametrize(
    "line",
    [
        "hyperopt: {goal: minimize}",
        "ludwig_version: 0.10",
        "backend: {type: local}",
        "combiner: {type: concat}",
        "trainer: {enable_profiling: true}",
        "preprocessing: {text: {lowercase: true}}",
        "    reduce_input: sum",
    ],
)
def test_taken_with_a_note(line, caplog):
    caplog.set_level(logging.INFO, logger="segdeploy")
    assert parse_config(BASE + line) == parse_config(BASE)
    assert [r.message.startswith("config: without effect in segdeploy: ") for r in caplog.records] == [True]


def test_neutral_values_are_taken_without_a_word(caplog):
    caplog.set_level(logging.INFO, logger="segdeploy")
    neutral = """\
    dependencies: []
    loss: {weight: 1.0, robust_lambda: 0, confidence_penalty: 0, class_similarities: null}
preprocessing: {sample_ratio: 1.0, sample_size: null}
trainer:
  train_steps: null
  regularization_lambda: 0.0
  gradient_clipping: {clipglobalnorm: 1.0, clipnorm: null, clipvalue: null}
  learning_rate_scheduler: {reduce_on_plateau: 0, warmup_evaluations: 0, pct_start: 0.3, reduce_eval_metric: loss}
  steps_per_checkpoint: 0
"""
    assert parse_config(BASE + neutral) == parse_config(BASE)
    assert caplog.records == []


# --lenient, --set and dicts.


def test_unknown_keys_are_refused_or_dropped(caplog):
    text = (
        BASE.replace("{type: segformer}", "{type: segformer, colour: red}")
        + "trainer: {epochs: 2, gadget: {a: 1}}\nx: 1"
    )
    assert [line.split(": ")[1] for line in mistakes(text)] == ["trainer.gadget", "x", f"{MASK}.decoder.colour"]
    config = parse_config(text, "c.yaml", lenient=True)
    assert config == parse_config(BASE + "trainer: {epochs: 2}")
    assert [r.message for r in caplog.records] == [
        f"c.yaml: unknown keys dropped: trainer.gadget, x, {MASK}.decoder.colour"
    ]


def test_lenient_still_refuses_wrong_values():
    with pytest.raises(ConfigError, match=r"trainer\.epochs: expected greater than 0"):
        parse_config(BASE + "trainer: {epochs: 0}\nx: 1", lenient=True)


@pytest.mark.parametrize(
    ("word", "read", "expected"),
    [
        ("trainer.learning_rate=0.5", lambda c: c.trainer.learning_rate, 0.5),
        ("trainer.optimizer.lr=0.5", lambda c: c.trainer.learning_rate, 0.5),
        ("decoder.num_classes=7", lambda c: c.mask.preprocessing.num_classes, 7),
        ("output_features.0.preprocessing.num_classes=7", lambda c: c.mask.preprocessing.num_classes, 7),
        ("preprocessing.image.height=64", lambda c: c.image.preprocessing.height, 64),
        ("input_features.0.preprocessing={height: 64, width: 32}", lambda c: c.image.preprocessing.height, 64),
    ],
)
def test_set_wins_in_either_spelling(word, read, expected):
    assert read(load_config(GOLDEN / "page_unet.yaml", [word])) == expected


def test_set_wins_over_the_masks_size():
    words = [f"input_features.0.preprocessing.{side}=64" for side in ("height", "width")]
    assert sized(load_config(GOLDEN / "config_unet_depth.yaml", words)) == (64, 64)


def test_a_dict_is_read_and_left_as_it_is():
    given = {
        "input_features": [{"name": "image", "type": "image", "encoder": "unet"}],
        "output_features": [{"name": "mask", "type": "image", "decoder": {"type": "unet", "num_classes": 3}}],
    }
    config = config_from_dict(given)
    assert config.mask.preprocessing.num_classes == 3
    assert given["input_features"][0]["encoder"] == "unet"
    with pytest.raises(ConfigError, match="expected dicts, lists, words"):
        config_from_dict({**given, "trainer": object()})
    with pytest.raises(ConfigError, match=r"^config: trainer.epochs: expected greater than 0, got 0$"):
        config_from_dict({**given, "trainer": {"epochs": 0}})


def test_set_null_wins():
    words = ["trainer.learning_rate_scheduler.decay=null"]
    assert load_config(GOLDEN / "page_unet.yaml", words).trainer.learning_rate_scheduler.decay is None
    words = [f"input_features.0.preprocessing.{side}=null" for side in ("height", "width")]
    assert sized(load_config(GOLDEN / "page_unet.yaml", words)) == (None, None)


@pytest.mark.parametrize("word", ["loss.label_smoothing=0.1", "trainer.optimizer.eps=1e-6"])
def test_set_into_a_string(word):
    text = BASE + "    loss: softmax_cross_entropy\ntrainer: {optimizer: adam}"
    config = parse_config(text, overrides=[word])
    assert config.trainer.optimizer.type == "adam"
    assert (config.mask.loss.label_smoothing, config.trainer.optimizer.eps) in {(0.1, None), (0.0, 1e-6)}


def test_decoder_is_unet_unless_it_is_named():
    for keys in ("", "    decoder: {conv_norm: null}\n"):
        assert parse_config(BASE.replace("    decoder: {type: segformer}\n", keys)).mask.decoder["type"] == "unet"


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ("{learning_rate_scheduler: null}", lambda t: t.learning_rate_scheduler.decay is None),
        ("{gradient_clipping: null}", lambda t: t.gradient_clipping.clipglobalnorm is None),
        ("{eval_batch_size: auto}", lambda t: t.eval_batch_size is None),
        ("{learning_rate: auto, optimizer: {type: adamw, lr: 0.5}}", lambda t: t.learning_rate == 0.5),
    ],
)
def test_ludwigs_words_for_none_and_for_choose_yourself(trainer, expected):
    assert expected(parse_config(BASE + f"trainer: {trainer}").trainer)


def test_depth_left_open_on_one_half():
    text = BASE.replace("{type: timm, model_name: resnet18}", "unet").replace("{type: segformer}", "%s")
    assert parse_config(text % "{type: unet, num_stages: null}").image.encoder["num_stages"] == 4


def test_more_keys_left_on_the_feature():
    text = BASE.replace("    preprocessing: {num_classes: 3}\n", "    num_classes: 5\n    num_fc_layers: 0\n")
    text = text.replace("    encoder:", "    saved_weights_in_checkpoint: true\n    encoder:")
    assert parse_config(text).mask.preprocessing.num_classes == 5


def test_sizes_for_all_images_against_the_masks_own():
    text = BASE.replace("{num_classes: 3}", "{num_classes: 3, height: 128, width: 128}")
    (first, _) = mistakes(text + "preprocessing: {image: {height: 256, width: 256}}")
    assert "preprocessing.height: is 128, but preprocessing.image.height is 256" in first


def test_equal_sides_need_sides():
    (line,) = mistakes(BASE + "preprocessing: {image: {requires_equal_dimensions: true}}")
    assert "requires_equal_dimensions: True has no counterpart" in line


def test_a_split_that_has_a_type_keeps_it():
    text = BASE + "preprocessing: {force_split: true, split: {type: hash}}"
    assert parse_config(text).preprocessing.split.type == "hash"


@pytest.mark.parametrize("part", ["encoder: {type: [x]}", "encoder: {type: {}}"])
def test_types_that_are_no_words(part):
    (line,) = mistakes(BASE.replace("encoder: {type: timm, model_name: resnet18}", part))
    assert line == f"c.yaml:4: {IMAGE}.encoder: needs a `type`"


def test_names_of_features():
    config = parse_config(BASE.replace("name: mask", "name: my mask/1"))
    assert (config.mask.name, config.mask.column) == ("my_mask_1", "my mask/1")
    (line,) = mistakes(BASE.replace("name: mask", "name: seconds"))
    assert "'seconds' is taken by the statistics" in line
    (line,) = mistakes(BASE.replace("name: mask", "name: image"))
    assert "input and output feature are both called 'image'" in line


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ("{optimizer: {betas: [0.9, 1.0]}}", "betas[1]: expected less than 1, got 1.0"),
        (
            "{optimizer: {type: adam, momentum: 0.9}}",
            "momentum belongs to sgd, rmsprop, lars, muon; adam has betas, eps, amsgrad",
        ),
        ("{optimizer: {type: sgd, nesterov: true}}", "nesterov needs a momentum above 0"),
        ("{learning_rate: 1e-3, learning_rate_scheduler: {eta_min: 0.1}}", "eta_min 0.1 is above learning_rate 0.001"),
    ],
)
def test_contradictions_in_the_trainer(trainer, said):
    (line,) = mistakes(BASE + f"trainer: {trainer}")
    assert said in line
