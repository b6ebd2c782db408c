"""Training with auxiliary losses, by a decoder that is made up on the spot."""

import json

import pytest
import torch
from safetensors.torch import load_file

from segdeploy.bundle import open_model
from segdeploy.checkpoint import load_weights
from segdeploy.config import parse_config
from segdeploy.data.demo import CLASS_NAMES, generate
from segdeploy.data.table import Tables
from segdeploy.errors import ConfigError, ModelError
from segdeploy.model.segmenter import build
from segdeploy.run_folder import CONFIG_FILE, LATEST_FILE
from segdeploy.train.loop import resume, train

DECODER = """
from torch import nn
from segdeploy.plugin import Auxiliary, DecoderPlugin, FeatureMap, Section, hookimpl

class Config(Section):
    aux_weight: float = 0.4
    pool: bool = False

class Taught(nn.Module):
    def __init__(self, config, features):
        super().__init__()
        norm = nn.BatchNorm2d(features[0].channels)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), norm) if config.pool else None
        self.conv = nn.Conv2d(features[0].channels, 8, 3, padding=1)
        self.out = FeatureMap(channels=8, stride=features[0].stride)
        if config.aux_weight > 0:
            self.aux = (Auxiliary(channels=8, stride=self.out.stride, weight=config.aux_weight),)

    def forward(self, maps):
        x = maps[0] if self.pool is None else maps[0] + self.pool(maps[0])
        return self.conv(x)

    def forward_aux(self, maps):
        y = self(maps)
        return y, (-y,)

@hookimpl
def segdeploy_register_decoders(register):
    register(DecoderPlugin(name="taught", summary="", config=Config, build=Taught))
"""

CONFIG = f"""
input_features:
  - name: image
    type: image
    preprocessing: {{height: 32, width: 48}}
    encoder: {{type: unet, base_channels: 4, num_stages: 2}}
output_features:
  - name: mask
    type: image
    preprocessing: {{classes: [{", ".join(CLASS_NAMES)}]}}
    decoder: {{type: taught}}
trainer: {{epochs: 2, batch_size: 7, learning_rate: 2e-3}}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data"), count=20, size=(32, 48))


@pytest.fixture
def taught(install, table, tmp_path):
    """A function that trains with the made-up decoder."""
    install("acme", "decoder.taught", DECODER)

    def go(*changes, **options):
        folder = tmp_path / "runs"
        return train(parse_config(CONFIG, overrides=changes), Tables(dataset=table), folder, device="cpu", **options)

    return go


def test_auxiliary_heads_learn_and_the_curve_shows_the_main_loss_alone(taught):
    """At a rate of nothing both losses are those of the first weights, whatever the auxiliary's weight."""
    still = ["trainer.learning_rate=1e-12", "trainer.epochs=1"]
    rows = [taught(*still, f"decoder.aux_weight={weight}").history[0] for weight in (0.4, 10)]
    assert rows[0]["training_loss"] == pytest.approx(rows[1]["training_loss"], abs=1e-5)
    assert rows[0]["training_loss"] == pytest.approx(rows[0]["validation_loss"], rel=0.15)
    done = taught("trainer.ema_decay=null")
    torch.manual_seed(parse_config(CONFIG).trainer.seed)
    fresh = build(open_model(done.run).spec).state_dict()
    trained = load_file(done.model / "model_weights.safetensors")
    heads = [name for name in trained if name.startswith("aux_heads.")]
    assert len(heads) == 2
    assert all((trained[n] - fresh[n]).abs().max() > 1e-4 for n in heads)


def test_resumed_run_with_auxiliary_losses_equals_uninterrupted_one(taught):
    plain = "trainer.learning_rate_scheduler.decay=null"  # a rate that does not depend on the number of epochs
    whole, part = taught(plain), taught(plain, "trainer.epochs=1")
    config = part.model / CONFIG_FILE
    config.write_text(
        json.dumps((done := json.loads(config.read_text())) | {"trainer": done["trainer"] | {"epochs": 2}})
    )
    ours, theirs = (load_file(r.model / LATEST_FILE) for r in (resume(part.run, device="cpu"), whole))
    assert any(n.startswith("model.aux_heads.") for n in ours)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)


def test_a_start_may_have_other_auxiliary_heads(taught):
    first = taught("trainer.epochs=1")
    still = ["trainer.learning_rate=1e-12", "trainer.epochs=1", "trainer.ema_decay=null"]
    without = taught("decoder.aux_weight=0", *still, start_from=first.run)
    held = load_file(without.model / "model_weights.safetensors")
    taken = load_file(first.model / "model_weights.safetensors")
    assert not any(n.startswith("aux_heads.") for n in held)
    assert torch.allclose(held["decoder.conv.weight"], taken["decoder.conv.weight"], atol=1e-6)
    again = taught(*still, start_from=without.run)  # and back: the head begins anew
    assert "aux_heads.0.weight" in load_file(again.model / "model_weights.safetensors")
    same = load_file(taught(*still, start_from=first.run).model / "model_weights.safetensors")
    assert torch.allclose(same["aux_heads.0.weight"], taken["aux_heads.0.weight"], atol=1e-6)
    with pytest.raises(ModelError, match="Unexpected key"):  # nobody else may leave them out
        load_weights(first.model / "model_weights.safetensors", build(open_model(without.run).spec))


def test_batch_that_is_too_small_is_refused_before_anything_is_written(taught, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot train on 48x32 images, 1 at a time: .* set trainer\.batch_size"):
        taught("decoder.pool=true", "trainer.batch_size=1")
    assert not (tmp_path / "runs").exists()
    assert taught("decoder.pool=true", "trainer.batch_size=2", "trainer.epochs=1").history
