"""What holds for every loss."""

import pytest
import torch

from segdeploy.train.losses.boundary import Boundary
from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.losses.dice import Dice
from segdeploy.train.losses.focal import Focal
from segdeploy.train.losses.lovasz import Lovasz
from segdeploy.train.losses.ohem import Ohem
from segdeploy.train.losses.weighted_sum import WeightedSum

MAKERS = {
    "cross_entropy": lambda w: CrossEntropy(w, 0.1),
    "focal": Focal,
    "focal with a small gamma": lambda w: Focal(w, 0.5),
    "dice": Dice,
    "lovasz": Lovasz,
    "ohem": lambda w: Ohem(w, 0.7, 20),
    "boundary": Boundary,
    "sum": lambda w: WeightedSum([CrossEntropy(w), Dice(w), Boundary(w)], [1.0, 0.5, 2.0]),
}
WEIGHTS = torch.tensor([1.0, 0.5, 0.0, 2.0])


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def slopes(loss, logits, target):
    logits = logits.clone().requires_grad_(True)
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_ignored_pixels_have_no_say(make, weights, batch):
    logits, target = batch
    ignored = target == 255 if weights is None else (target == 255) | (target == 2)
    value, slope = slopes(make(weights), logits, target)
    assert value > 0.1
    assert slope.permute(0, 2, 3, 1)[ignored].abs().max() == 0
    assert slope.permute(0, 2, 3, 1)[~ignored].abs().max() > 1e-5
    other = torch.where(ignored[:, None], torch.randn_like(logits) * 9, logits)
    torch.testing.assert_close(make(weights)(other, target), value, rtol=1e-5, atol=0)


def test_class_of_weight_zero_is_as_good_as_ignored(make, batch):
    logits, target = batch
    ours = slopes(make(WEIGHTS), logits, target)
    theirs = slopes(make(WEIGHTS), logits, target.masked_fill(target == 2, 255))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_parts_of_single_images_add_up_to_the_batch(make, weights, batch):
    logits, target = batch
    target[1] = 255  # an image without a label is no image
    loss = make(weights)
    parts = [loss.parts(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    whole = loss(logits, target)
    torch.testing.assert_close(loss.mean(sum(s for s, _ in parts), sum(w for _, w in parts)), whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss(logits[[0, 2]], target[[0, 2]]), whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.parts(logits, target)[1], loss.weights(target), rtol=0, atol=0)


def test_gradients_of_parts_over_the_weight_of_all_add_up_to_the_batch(make, batch):
    """What accumulation over small batches and over processes relies on."""
    logits, target = batch
    loss = make(WEIGHTS)
    _, whole = slopes(loss, logits, target)
    summed = logits.clone().requires_grad_(True)
    for i in range(3):
        loss.mean(loss.parts(summed[i : i + 1], target[i : i + 1])[0], loss.weights(target)).backward()
    torch.testing.assert_close(summed.grad, whole, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_no_label_no_loss_and_no_gradient(make, weights, batch):
    logits, target = batch
    nothing = torch.full_like(target, 255) if weights is None else torch.full_like(target, 2)
    value, slope = slopes(make(weights), logits, nothing)
    assert value == 0
    assert slope.abs().max() == 0
    assert not make(weights).weights(nothing).any()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 50.0, 1e4])
def test_gradients_are_finite_however_sure_the_network_is(make, scale, batch):
    target = batch[1]
    for sign in (1, -1):  # right everywhere, wrong everywhere, undecided
        sure = sign * scale * torch.nn.functional.one_hot(target.clamp_max(3), 4).permute(0, 3, 1, 2).float()
        value, slope = slopes(make(None), sure, target)
        assert value.isfinite()
        assert slope.isfinite().all()


def test_right_is_better_than_wrong(make, batch):
    right = 20 * torch.nn.functional.one_hot(batch[1].clamp_max(3), 4).permute(0, 3, 1, 2).float()
    assert make(None)(right, batch[1]) < 0.5 * make(None)(-right, batch[1])
