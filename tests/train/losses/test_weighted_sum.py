import pytest
import torch

from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.losses.dice import Dice
from segdeploy.train.losses.weighted_sum import WeightedSum


def test_adds_up(batch):
    first, second = CrossEntropy(), Dice()
    whole = WeightedSum([first, second], [0.5, 3.0])
    assert whole(*batch).item() == pytest.approx((0.5 * first(*batch) + 3 * second(*batch)).item(), rel=1e-6)
    sums, weights = whole.parts(*batch)
    assert sums.shape == weights.shape == (2,)


def test_losses_move_with_it(batch):
    whole = WeightedSum([CrossEntropy(torch.ones(4)), Dice()], [1.0, 1.0]).to(torch.float64)
    assert whole.losses[0].class_weights.dtype == whole.factors.dtype == torch.float64
    assert not whole.state_dict()
