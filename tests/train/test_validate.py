"""The validation loss against the loss of the whole table as one batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segdeploy.bundle import open_model
from segdeploy.data.table import read_table
from segdeploy.evaluate import evaluate
from segdeploy.runtime.runner import open_runner
from segdeploy.train.losses.boundary import Boundary
from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.losses.dice import Dice
from segdeploy.train.losses.focal import Focal
from segdeploy.train.losses.lovasz import Lovasz
from segdeploy.train.losses.ohem import Ohem
from segdeploy.train.losses.weighted_sum import WeightedSum
from segdeploy.train.validate import evaluate_with_loss

WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.7, 1.5, 2.0, 9.0])


@pytest.fixture(scope="module")
def opened(tiny_run):
    bundle = open_model(tiny_run)
    with open_runner(bundle, "torch") as runner:
        yield runner, bundle.spec


@pytest.fixture(scope="module")
def samples(tiny_table, tmp_path_factory):
    """The first seven of the table; of the third half is ignored, of the fourth all."""
    folder = tmp_path_factory.mktemp("ignored")
    chosen = read_table(tiny_table)[:7]
    for number, part in ((2, 0.5), (3, 1.0)):
        mask = np.array(Image.open(chosen[number].mask))
        mask[: int(len(mask) * part)] = 255
        Image.fromarray(mask).save(folder / f"{number}.png")
        chosen[number] = type(chosen[number])(chosen[number].image, folder / f"{number}.png")
    return chosen


def one_batch(runner, samples, spec):
    """Logits and masks (64 x 96) of all samples, with Pillow and the network itself."""
    images = [Image.open(s.image).convert("RGB").resize((96, 64), Image.Resampling.BILINEAR) for s in samples]
    masks = [Image.open(s.mask).resize((96, 64), Image.Resampling.NEAREST) for s in samples]
    x = torch.tensor(np.stack([np.array(i) for i in images]) / 255, dtype=torch.float32)
    x = (x - torch.tensor(spec.preprocessing.mean)) / torch.tensor(spec.preprocessing.std)
    with torch.no_grad():
        logits = runner.module.segmenter(x.permute(0, 3, 1, 2))
    return logits, torch.tensor(np.stack([np.array(m) for m in masks])).long()


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_equals_one_giant_batch(opened, samples, weights, smoothing, batch_size):
    runner, spec = opened
    loss = CrossEntropy(weights, smoothing)
    found = evaluate_with_loss(runner, loss, samples, spec, batch_size=batch_size, at="mask")
    theirs = nn.CrossEntropyLoss(weights, ignore_index=255, label_smoothing=smoothing)
    assert found.loss == pytest.approx(theirs(*one_batch(runner, samples, spec)).item(), rel=1e-5)
    stats = found.to_dict(spec)["mask"]
    assert stats["loss"] == found.loss
    assert stats["confusion_matrix"] == evaluate(runner, samples, spec, batch_size=batch_size).scores.confusion.tolist()


def test_class_of_weight_zero_has_no_label(opened, samples):
    runner, spec = opened
    weights = WEIGHTS.clone()
    weights[2] = 0
    loss = nn.CrossEntropyLoss(weights, ignore_index=255, label_smoothing=0.1)
    logits, masks = one_batch(runner, samples, spec)
    expected = loss(logits, masks.masked_fill(masks == 2, 255)).item()
    assert loss(logits, masks).item() != pytest.approx(expected, rel=1e-3)
    found = evaluate_with_loss(runner, CrossEntropy(weights, 0.1), samples, spec).loss
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        Focal(WEIGHTS),
        Dice(),
        Lovasz(WEIGHTS),
        Ohem(None, 0.3, 100),
        Boundary(WEIGHTS),
        WeightedSum([CrossEntropy(), Dice(WEIGHTS)], [1.0, 0.5]),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_every_loss_equals_itself_on_one_giant_batch(opened, samples, loss):
    runner, spec = opened
    found = evaluate_with_loss(runner, loss, samples, spec, batch_size=3)
    assert found.loss == pytest.approx(loss(*one_batch(runner, samples, spec)).item(), rel=1e-4)


def test_no_label_no_loss(opened, samples):
    runner, spec = opened
    found = evaluate_with_loss(runner, CrossEntropy(), [samples[3]], spec)
    assert np.isnan(found.loss)
    assert found.to_dict(spec)["mask"]["loss"] is None


def test_network_runs_once_and_is_left_as_it_was(opened, samples):
    runner, spec = opened
    calls = []
    counter = runner.module.segmenter.register_forward_hook(lambda *_: calls.append(1))
    evaluate_with_loss(runner, CrossEntropy(), samples, spec, batch_size=3)
    counter.remove()
    assert len(calls) == 3
    assert not runner.module.segmenter._forward_hooks
