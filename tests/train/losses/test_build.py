import numpy as np
import pytest
import torch

from segdeploy.classes import ClassMap, default_colors
from segdeploy.config import loss as keys
from segdeploy.data.scan import ScanReport
from segdeploy.errors import ConfigError
from segdeploy.train.losses import build_loss
from segdeploy.train.losses.boundary import Boundary
from segdeploy.train.losses.dice import Dice
from segdeploy.train.losses.focal import Focal
from segdeploy.train.losses.lovasz import Lovasz
from segdeploy.train.losses.ohem import Ohem
from segdeploy.train.losses.weighted_sum import WeightedSum

CLASSES = ClassMap(names=("a", "b", "c"), colors=default_colors(3))
REPORT = ScanReport(CLASSES, np.array([600, 300, 100]), 0, np.array([10, 10, 5]), {})


def by_hand(logits, target, weights):
    """Weighted mean over labelled pixels, one at a time."""
    total = weight = 0.0
    for n in range(target.shape[0]):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                label = int(target[n, y, x])
                if label == 255:
                    continue
                values = logits[n, :, y, x].astype(np.float64)
                log_probability = values[label] - np.log(np.exp(values).sum())
                total -= weights[label] * log_probability
                weight += weights[label]
    return total / weight


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        (None, [1, 1, 1]),
        ((0.5, 2.0, 1.0), [0.5, 2.0, 1.0]),
        ({"c": 3.0, "a": 1.0, "b": 0.25}, [1.0, 0.25, 3.0]),
        # frequencies 60, 30, 20 pixels per mask that has the class; their median is 30
        ("auto", [0.5, 1.0, 1.5]),
    ],
)
def test_cross_entropy_against_a_plain_loop(given, weights):
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 3, 4, 5)).astype(np.float32)
    target = random.choice([0, 1, 2, 255], size=(2, 4, 5))
    loss = build_loss(keys.CrossEntropy(class_weights=given), REPORT)
    found = loss(torch.from_numpy(logits), torch.from_numpy(target)).item()
    assert found == pytest.approx(by_hand(logits, target, weights), rel=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((1.0, 2.0), "expected one weight for each of a, b, c; found 1.0, 2.0"),
        ({"a": 1.0, "b": 1.0, "d": 1.0}, "expected one weight for each of a, b, c; found a, b, d"),
        ((0.0, 0.0, 0.0), "has weight 0, so there is nothing to learn; give a weight above 0 to one of a, b$"),
        ((0.0, 0.0, 1.0), "has weight 0, so there is nothing to learn"),  # no training mask has the last class
    ],
)
def test_weights_that_cannot_teach_are_refused(given, said):
    report = ScanReport(CLASSES, np.array([600, 300, 0]), 0, np.array([10, 10, 0]), {})
    with pytest.raises(ConfigError, match=said):
        build_loss(keys.CrossEntropy(class_weights=given), report)


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (keys.Focal(gamma=3.0), Focal, {"gamma": 3.0}),
        (keys.Dice(smooth=2.0), Dice, {"smooth": 2.0}),
        (keys.Lovasz(), Lovasz, {}),
        (keys.Ohem(threshold=0.5, min_kept=7), Ohem, {"threshold": 0.5, "min_kept": 7}),
        (keys.Boundary(theta0=5, theta=9), Boundary, {"theta0": 5, "theta": 9}),
    ],
)
def test_keys_reach_their_loss(given, kind, expected):
    loss = build_loss(given.model_copy(update={"class_weights": (1.0, 0.0, 2.0)}), REPORT)
    assert type(loss) is kind
    assert {key: getattr(loss, key) for key in expected} == expected
    assert loss.class_weights.tolist() == [1, 0, 2]


def test_list_and_weight():
    one, two = keys.CrossEntropy(class_weights="auto"), keys.Dice(weight=0.5)
    loss = build_loss((one, two), REPORT)
    assert isinstance(loss, WeightedSum)
    assert loss.factors.tolist() == [1, 0.5]
    assert [x.class_weights is None for x in loss.losses] == [False, True]
    assert build_loss(two, REPORT).factors.tolist() == [0.5]
    assert type(build_loss((keys.Dice(),), REPORT)) is Dice
