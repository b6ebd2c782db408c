"""Training by other losses, rules and schedules than the usual ones, from the configuration to the run folder."""

import json

import pytest
import torch
from safetensors.torch import load_file

from segdeploy.bundle import open_model
from segdeploy.config import parse_config
from segdeploy.data.table import Tables
from segdeploy.errors import ConfigError
from segdeploy.model.segmenter import build
from segdeploy.run_folder import CONFIG_FILE, LATEST_FILE
from segdeploy.runtime.runner import open_runner
from segdeploy.train.loop import resume, train
from segdeploy.train.score import score

CONFIG = """
input_features:
  - name: image
    type: image
    preprocessing: {height: 32, width: 48}
    encoder: {type: timm, model_name: test_resnet, use_pretrained: false}
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [background, disc, box, gear, wrench, sponge, cable]}
    decoder: {type: fpn, num_channels: 8, merge_channels: 8}
    loss: [{type: focal, class_weights: auto}, {type: dice, weight: 0.5}, lovasz_softmax, boundary, ohem]
trainer:
  epochs: 2
  batch_size: 7
  learning_rate: 0.01
  optimizer: {type: lamb, weight_decay: 0.01, layer_decay: 0.8, encoder_lr_scale: 0.5}
  gradient_clipping: {clipglobalnorm: 5, clipnorm: 1, clipvalue: 0.1}
  layers_to_freeze_regex: 'encoder\\.body\\.(conv1|bn1)\\.'
  learning_rate_scheduler:
    decay: null
    warmup_fraction: 0
    reduce_on_plateau: 5
    reduce_on_plateau_patience: 0
    reduce_on_plateau_rate: 0.5
    reduce_eval_metric: mean_iou
    reduce_eval_split: validation
"""


@pytest.fixture(scope="module")
def finished(tiny_table, tmp_path_factory):
    return train(parse_config(CONFIG), Tables(dataset=tiny_table), tmp_path_factory.mktemp("runs"), device="cpu")


def go_on(run, epochs):
    """The run, taken up again as if it had been meant to last so long."""
    kept = run / "model" / CONFIG_FILE
    done = json.loads(kept.read_text())
    kept.write_text(json.dumps(done | {"trainer": done["trainer"] | {"epochs": epochs}}))
    return resume(run, device="cpu")


def test_all_at_once_goes_on_as_if_never_stopped(finished, tiny_table, tmp_path):
    config = parse_config(CONFIG, overrides=["trainer.epochs=1"])
    part = go_on(train(config, Tables(dataset=tiny_table), tmp_path, device="cpu").run, 2)
    ours, theirs = (load_file(r.model / LATEST_FILE) for r in (part, finished))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_frozen_stays_and_the_rest_moves(finished):
    torch.manual_seed(parse_config(CONFIG).trainer.seed)
    fresh = build(open_model(finished.run).spec).state_dict()
    trained = load_file(finished.model / "model_weights.safetensors")
    still = {n for n, value in trained.items() if torch.equal(value, fresh[n]) and value.is_floating_point()}
    frozen = {
        n for n in trained if n.startswith(("encoder.body.conv1.", "encoder.body.bn1.")) and "num_batches" not in n
    }
    assert len(frozen) >= 5
    assert still == frozen


def test_score_knows_the_loss_of_the_run(finished, tiny_table):
    from segdeploy.data.table import read_table

    bundle = open_model(finished.run)
    with open_runner(bundle, "torch") as runner:
        found = score(bundle, runner, [s for s in read_table(tiny_table) if s.part == "validation"])
    assert found.loss == pytest.approx(finished.history[finished.best_epoch - 1]["validation_loss"], rel=1e-3)


def test_rate_falls_where_nothing_improves_over_a_stop_too(tiny_table, tmp_path):
    words = ["trainer.epochs=3", "trainer.learning_rate=1e-12", "loss=softmax_cross_entropy", "trainer.optimizer=adamw"]
    config = parse_config(CONFIG, overrides=words)
    rows = go_on(train(config, Tables(dataset=tiny_table), tmp_path, device="cpu").run, 5).history
    expected = [1e-12, 1e-12, 5e-13, 2.5e-13, 1.25e-13]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected, abs=0)


def test_gradients_are_clipped_and_the_encoder_learns_at_its_own_rate(tiny_table, tmp_path):
    """Two steps of plain descent at 0.01, each with slopes of 0.001 at most, and a tenth of that in the encoder."""
    words = ["trainer.epochs=1", "trainer.layers_to_freeze_regex=null", "loss=softmax_cross_entropy"]
    words.append("trainer.gradient_clipping={clipglobalnorm: null, clipvalue: 1e-3}")
    words.append("trainer.optimizer={type: sgd, encoder_lr_scale: 0.1}")
    config = parse_config(CONFIG, overrides=words)
    run = train(config, Tables(dataset=tiny_table), tmp_path, device="cpu").run
    torch.manual_seed(config.trainer.seed)
    fresh = dict(build(open_model(run).spec).named_parameters())
    trained = load_file(run / "model" / "model_weights.safetensors")
    moved = {name: (trained[name] - fresh[name]).abs().max().item() for name in fresh}
    assert max(m for name, m in moved.items() if not name.startswith("encoder.")) == pytest.approx(2e-5, rel=0.02)
    assert max(m for name, m in moved.items() if name.startswith("encoder.")) == pytest.approx(2e-6, rel=0.1)


def test_a_pattern_that_is_found_nowhere_leaves_nothing_written(tiny_table, tmp_path):
    config = parse_config(CONFIG, overrides=["trainer.layers_to_freeze_regex=encodr"])
    with pytest.raises(ConfigError, match="'encodr' is found in no parameter's name"):
        train(config, Tables(dataset=tiny_table), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


ONE_SIZE = """
from torch import nn
from segdeploy.plugin import EncoderPlugin, FeatureMap, Section, hookimpl

class Config(Section):
    pass

class Narrow(nn.Module):
    features = (FeatureMap(channels=4, stride=4), FeatureMap(channels=4, stride=8))

    def __init__(self, config):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 2, 2)

    def forward(self, image):
        if image.shape[-2:] != (32, 48):
            raise ValueError("takes 48x32 pixels alone")
        fine = self.fine(image)
        return fine, self.coarse(fine)

@hookimpl
def segdeploy_register_encoders(register):
    register(EncoderPlugin(name="narrow", summary="", config=Config, build=Narrow))
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("use_pretrained: false}", "use_pretrained: false, trainable: false}", "every parameter is frozen"),
        ("epochs: 2", "epochs: 2\n  effective_batch_size: 1", "random_cut_mix needs another sample in the batch"),
    ],
)
def test_what_cannot_learn_leaves_nothing_written(old, new, said, tiny_table, tmp_path):
    text = CONFIG.replace(r"'encoder\.body\.(conv1|bn1)\.'", "[^decoder, ^head]").replace(old, new)
    text = text.replace("    encoder:", "    augmentation: [{type: random_cut_mix}]\n    encoder:")
    if "trainable" not in new:
        text = text.replace("[^decoder, ^head]", "null")
    with pytest.raises(ConfigError, match=said):
        train(parse_config(text), Tables(dataset=tiny_table), tmp_path, device="cpu")
    assert not any(tmp_path.iterdir())


def test_an_encoder_whose_layers_cannot_be_seen_leaves_nothing_written(install, tiny_table, tmp_path):
    install("acme", "encoder.narrow", ONE_SIZE)
    words = ["encoder={type: narrow}", "decoder={type: unet, channels: [8]}", "trainer.layers_to_freeze_regex=null"]
    config = parse_config(CONFIG, overrides=words)
    with pytest.raises(ConfigError, match=r"trainer\.optimizer\.layer_decay: .* use encoder_lr_scale instead"):
        train(config, Tables(dataset=tiny_table), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
