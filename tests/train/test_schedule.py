"""Every schedule against torch's own, step by step."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from segdeploy.config.scheduler import Scheduler
from segdeploy.train.schedule import Plateau, learning_rate

PEAK = 0.1


def torchs(make, steps):
    """The rates that a scheduler of torch's gives to `steps` steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(steps, **keys):
    config = Scheduler(**{"warmup_fraction": 0.0, **keys})
    return [learning_rate(step, steps, PEAK, config) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 75])
@pytest.mark.parametrize(
    ("keys", "make"),
    [
        ({"decay": None}, lambda o, n: lr_scheduler.ConstantLR(o, 1.0)),
        ({"eta_min": 0.01}, lambda o, n: lr_scheduler.CosineAnnealingLR(o, n, 0.01)),
        ({"t_0": 10, "eta_min": 0.001}, lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 1, 0.001)),
        ({"t_0": 10, "t_mult": 2}, lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, 2)),
        ({"decay": "linear"}, lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, n)),
        ({"decay": "polynomial", "polynomial_power": 0.9}, lambda o, n: lr_scheduler.PolynomialLR(o, n, 0.9)),
        (
            {"decay": "exponential", "decay_rate": 0.5, "decay_steps": 20},
            lambda o, n: lr_scheduler.ExponentialLR(o, 0.5 ** (1 / 20)),
        ),
        (
            {"decay": "exponential", "decay_rate": 0.5, "decay_steps": 20, "staircase": True},
            lambda o, n: lr_scheduler.StepLR(o, 20, 0.5),
        ),
        (
            {"decay": "one_cycle"},
            lambda o, n: lr_scheduler.OneCycleLR(o, PEAK, n, cycle_momentum=False),
        ),
        (
            {"decay": "one_cycle", "max_lr": 0.7, "pct_start": 0.1, "div_factor": 10.0, "final_div_factor": 100.0},
            lambda o, n: lr_scheduler.OneCycleLR(o, 0.7, n, None, None, 0.1, "cos", False, 0.8, 0.9, 10.0, 100.0),
        ),
        (
            {"decay": "inverse_sqrt", "inverse_sqrt_warmup_steps": 20},
            lambda o, n: lr_scheduler.LambdaLR(o, lambda i: min((i + 1) / 20, (20 / (i + 1)) ** 0.5)),
        ),
    ],
)
def test_equals_torchs(keys, make, steps):
    assert ours(steps, **keys) == pytest.approx(torchs(lambda o: make(o, steps), steps), rel=1e-9, abs=1e-12)


def test_polynomial_to_an_end():
    """Torch knows 0 alone; the end is a rate, as Ludwig's page says."""
    found = ours(50, decay="polynomial", polynomial_power=2.0, polynomial_end_lr=0.02)
    assert found == pytest.approx([0.02 + 0.08 * (1 - step / 50) ** 2 for step in range(50)])


@pytest.mark.parametrize("pct_start", [0.0, 0.5, 1.0])
def test_one_cycle_at_its_limits(pct_start):
    found = ours(10, decay="one_cycle", pct_start=pct_start)
    assert max(found) == pytest.approx(PEAK, rel=0.1)
    assert all(0 < rate <= PEAK for rate in found)


def test_warm_up_then_cosine():
    def make(optimizer):
        # Torch's starts from a share of the peak at the first step: ours is one step further at each.
        warm = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)
        return lr_scheduler.SequentialLR(optimizer, [warm, lr_scheduler.CosineAnnealingLR(optimizer, 90)], [10])

    assert ours(100, warmup_fraction=0.1) == pytest.approx(torchs(make, 100))


def test_up_level_and_down():
    keys = {"wsd_warmup_fraction": 0.2, "wsd_stable_fraction": 0.5, "wsd_decay_fraction": 0.3}
    found = ours(20, decay="wsd", warmup_fraction=0.5, **keys)
    assert found[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert found[3:14] == [PEAK] * 11
    assert found[14:] == pytest.approx([PEAK * (1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)])


@pytest.mark.parametrize("decay", ["one_cycle", "inverse_sqrt", "wsd"])
def test_schedules_with_a_rise_of_their_own_have_no_other(decay):
    assert ours(30, decay=decay, warmup_fraction=0.0) == ours(30, decay=decay, warmup_fraction=0.3)


@pytest.mark.parametrize("metric", ["loss", "mean_iou"])
def test_plateau_against_torchs(metric):
    """Values that fall, wander and fall again; three reductions at most, kept over a stop in between."""
    values = [5, 4, 3, 2.9999, 3.1, 3.2, 3.0, 2, 2.5, 2.5, 2.5, 2.5, 2.5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    if metric != "loss":
        values = [6 - v for v in values]
    config = Scheduler(
        reduce_on_plateau=3,
        reduce_on_plateau_patience=2,
        reduce_on_plateau_rate=0.5,
        reduce_eval_metric=metric,
        reduce_eval_split="validation",
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, "min" if metric == "loss" else "max", 0.5, 2)
    plateau, found, expected = Plateau.of(config), [], []
    for value in values:
        plateau.observe(value)
        plateau = Plateau(**json.loads(json.dumps(asdict(plateau))))
        theirs.step(value)
        found.append(plateau.factor)
        expected.append(max(optimizer.param_groups[0]["lr"], 0.125))
    assert found == expected
    assert expected[-1] == 0.125
    assert optimizer.param_groups[0]["lr"] < 0.125  # torch's goes on


def test_no_plateau_unless_it_is_asked_for():
    plateau = Plateau.of(Scheduler())
    for _ in range(100):
        plateau.observe(1.0)
    assert plateau.factor == 1.0


def test_no_number_is_no_improvement():
    plateau = Plateau.of(Scheduler(reduce_on_plateau=1, reduce_on_plateau_patience=1))
    for value in (math.nan, math.nan):
        plateau.observe(value)
    assert plateau.factor == pytest.approx(0.1)
    assert plateau.best is None
