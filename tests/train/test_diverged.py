"""A loss that is no number ends the run with the batch and the weights that gave it."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from segdeploy.bundle import read_spec
from segdeploy.config import parse_config
from segdeploy.data.table import Tables, read_table
from segdeploy.errors import SegdeployError
from segdeploy.model.segmenter import build
from segdeploy.train.loop import train

WILD = ["trainer.learning_rate=1e30", "trainer.gradient_clipping.clipglobalnorm=null", "decoder.dropout=0.0"]


@pytest.fixture(scope="module")
def diverged(taught_config, small_table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diverged")
    with pytest.raises(SegdeployError) as caught:
        train(parse_config(taught_config, overrides=WILD), Tables(dataset=small_table), folder, device="cpu")
    return folder / "experiment_run", str(caught.value)


def test_one_line_says_when_and_where_to_look(diverged, small_table):
    run, said = diverged
    about = json.loads((run / "diverged" / "batch.json").read_text())
    assert about["epoch"] == 1
    assert about["step"] == 2  # the first step's weights are wild, its loss is not
    assert about["weights_were_finite"] is True
    assert "\n" not in said
    assert f"the training loss of epoch 1, step 2 is {about['optimized_loss']}, with {about['images'][0]}, " in said
    assert f"look at {run / 'diverged'}, lower trainer.learning_rate" in said
    pairs = {(str(s.image), str(s.mask)) for s in read_table(small_table) if s.part == "training"}
    assert set(zip(about["images"], about["masks"], strict=True)) < pairs
    assert len(about["images"]) == 4


def test_weights_and_batch_give_that_loss_again(diverged):
    run, _ = diverged
    held = load_file(run / "diverged" / "batch.safetensors")
    weights = {name.removeprefix("model."): t for name, t in held.items() if name.startswith("model.")}
    model = build(read_spec(run / "model"))
    parameters = dict(model.named_parameters())
    assert all(torch.isfinite(weights[name]).all() for name in parameters)
    assert max(weights[name].abs().max() for name in parameters) > 1e20
    model.load_state_dict(weights)
    images, masks = held["images"], held["masks"].long()
    assert (images.shape, masks.shape) == ((4, 3, 32, 48), (4, 32, 48))
    losses = [
        torch.nn.functional.cross_entropy(model.train()(images[i : i + 2]), masks[i : i + 2], ignore_index=255)
        for i in (0, 2)
    ]
    assert not torch.isfinite(torch.stack(losses)).all()
    with safe_open(run / "diverged" / "batch.safetensors", framework="pt") as handle:
        assert json.loads(handle.metadata()["about"]) == json.loads((run / "diverged" / "batch.json").read_text())


def test_picture_shows_images_above_their_masks(diverged):
    assert Image.open(diverged[0] / "diverged" / "batch.png").size == (4 * 48, 2 * 32)


def test_weights_that_a_gradient_ruined_blame_the_step_before(taught_config, small_table, tmp_path, monkeypatch):
    """Its loss was finite; what came of its gradient shows one step later."""
    from segdeploy.train.step import Step

    update, taken = Step._update, []

    def ruin(self):
        taken.append([i for batch in self._before for i in batch.samples])
        if len(taken) == 2:
            next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(float("nan"))
        update(self)

    monkeypatch.setattr(Step, "_update", ruin)
    with pytest.raises(SegdeployError, match="the step before made the weights infinite or NaN"):
        train(parse_config(taught_config), Tables(dataset=small_table), tmp_path, device="cpu")
    about = json.loads((tmp_path / "experiment_run" / "diverged" / "batch.json").read_text())
    assert about["step"] == 3
    assert about["weights_were_finite"] is False
    names = [str(s.image) for s in read_table(small_table) if s.part == "training"]
    assert about["images"] == [names[i] for i in taken[1]]
