"""Boxes and classes of other samples, against plain NumPy loops over the samples."""

from collections import Counter

import numpy as np
import pytest
import torch

from segdeploy.classes import ClassMap
from segdeploy.config.augmentation import CopyPaste, CutMix
from segdeploy.data.augment_mix import copy_paste, cut_mix, pasted_classes
from segdeploy.data.scan import ScanReport
from segdeploy.errors import ConfigError

COUNT, SIZE = 12, (20, 30)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=COUNT):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 255], (count, *SIZE)).astype(np.int64)
    return torch.from_numpy(rng.random((count, 3, *SIZE), np.float32)), torch.from_numpy(labels)


def draws(probability, seed, count=COUNT):
    """Which samples are changed and by which others, as the generator has it."""
    of = generator(seed)
    fires = torch.rand(count, generator=of) < probability
    step = torch.randint(1, count, (count,), generator=of)
    return fires.tolist(), [(i + s) % count for i, s in enumerate(step.tolist())], of


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_copy_paste_is_that_of_a_plain_loop(probability):
    x, y = batch()
    step = CopyPaste(type="random_copy_paste", probability=probability)
    found_x, found_y = copy_paste(x, y, step, [1, 3], generator(4))
    fires, partners, _ = draws(probability, 4)
    expected_x, expected_y = x.numpy().copy(), y.numpy().copy()
    for i in range(COUNT):
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                if fires[i] and y[partners[i], row, column] in (1, 3):
                    expected_y[i, row, column] = y[partners[i], row, column]
                    expected_x[i, :, row, column] = x[partners[i], :, row, column]
    assert np.array_equal(found_x.numpy(), expected_x)
    assert np.array_equal(found_y.numpy(), expected_y)
    assert all(i != p for i, p in enumerate(partners))
    if probability == 1:
        assert (found_y == 255).sum() < (y == 255).sum()  # an ignored pixel may get a label, and none is pasted


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_cut_mix_is_that_of_a_plain_loop(probability):
    x, y = batch()
    step = CutMix(type="random_cut_mix", probability=probability, min=0.2, max=0.6)
    found_x, found_y = cut_mix(x, y, step, generator(4))
    fires, partners, of = draws(probability, 4)
    shares = (torch.rand(COUNT, generator=of) * 0.4 + 0.2).tolist()
    starts = torch.stack([torch.rand(COUNT, generator=of), torch.rand(COUNT, generator=of)]).tolist()
    expected_x, expected_y = x.numpy().copy(), y.numpy().copy()
    for i in range(COUNT):
        if fires[i]:
            height, width = (round(shares[i] ** 0.5 * side) for side in SIZE)
            top, left = int(starts[0][i] * (SIZE[0] - height + 1)), int(starts[1][i] * (SIZE[1] - width + 1))
            box = slice(top, top + height), slice(left, left + width)
            expected_x[i][:, *box] = x.numpy()[partners[i]][:, *box]
            expected_y[i][box] = y.numpy()[partners[i]][box]
    assert np.array_equal(found_x.numpy(), expected_x)
    assert np.array_equal(found_y.numpy(), expected_y)


def test_boxes_have_the_shares_that_were_asked_for():
    x = torch.arange(256.0).view(-1, 1, 1, 1).expand(-1, 3, 40, 40)
    y = torch.zeros(256, 40, 40, dtype=torch.int64)
    step = CutMix(type="random_cut_mix", probability=1.0, min=0.1, max=0.5)
    found, _ = cut_mix(x, y, step, generator())
    shares = (found[:, 0] != x[:, 0]).float().mean((1, 2))
    assert 0.09 < shares.min() < 0.13
    assert 0.47 < shares.max() < 0.53
    assert shares.mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_sample_alone_stays_as_it_is():
    x, y = batch(1)
    steps = CutMix(type="random_cut_mix", probability=1.0), CopyPaste(type="random_copy_paste", probability=1.0)
    for found in (cut_mix(x, y, steps[0], generator()), copy_paste(x, y, steps[1], [0, 1], generator())):
        assert torch.equal(found[0], x)
        assert torch.equal(found[1], y)


def report(*pixels):
    names = ("road", "pole", "sign", "car")
    classes = ClassMap(names=names, colors=((0, 0, 0),) * 4)
    return ScanReport(classes, np.array(pixels), 1000, np.array(pixels) > 0, Counter({(4, 4): 1}))


def test_rare_classes_are_those_below_the_frequency():
    step = CopyPaste(type="random_copy_paste")
    assert pasted_classes(step, report(9400, 150, 0, 450)) == [1]  # a class that never occurs cannot be pasted
    assert pasted_classes(step, report(9640, 10, 200, 150)) == [1, 2, 3]  # at most 2 %
    assert pasted_classes(CopyPaste(type="random_copy_paste", max_frequency=0.5), report(97, 1, 1, 1)) == [1, 2, 3]


def test_classes_go_by_name():
    step = CopyPaste(type="random_copy_paste", classes=("car", "pole"))
    assert pasted_classes(step, report(1, 1, 1, 1)) == [3, 1]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            CopyPaste(type="random_copy_paste", max_frequency=0.1),
            "no class has at most 0.1 of the labelled training pixels; the rarest is sign with 0.2; raise max_freq",
        ),
        (
            CopyPaste(type="random_copy_paste", classes=("car", "bus")),
            "random_copy_paste.classes: no class is named 'bus'; the classes are road, pole, sign, car",
        ),
    ],
)
def test_classes_that_cannot_be_pasted_are_one_line(step, said):
    with pytest.raises(ConfigError, match=said) as caught:
        pasted_classes(step, report(30, 25, 20, 25))
    assert len(str(caught.value).splitlines()) == 1
