import pytest
import torch
from torch import nn

from segdeploy.config.optimizer import Optimizer
from segdeploy.config.scheduler import Scheduler
from segdeploy.config.trainer import Trainer
from segdeploy.train.optim import build_optimizer, learning_rate


def test_cosine_with_warm_up_against_torchs_schedulers():
    total, peak, config = 100, 0.1, Scheduler(warmup_fraction=0.1, eta_min=0.01)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)
    expected = []
    for _ in range(10):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warm.step()
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["initial_lr"] = peak
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.01)
    for _ in range(90):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert [learning_rate(i, total, peak, config) for i in range(total)] == pytest.approx(expected)


def test_constant_rate():
    config = Scheduler(decay=None, warmup_fraction=0.0)
    assert {learning_rate(i, 10, 0.5, config) for i in range(10)} == {0.5}


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(True)
    optimizer = build_optimizer(model, Trainer(learning_rate=0.1, optimizer=Optimizer(weight_decay=0.5)))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5))
    assert all(torch.equal(after[n], before[n]) for n in ("0.bias", "1.weight", "1.bias"))


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    model[0].requires_grad_(False)
    held = [p for g in build_optimizer(model, Trainer()).param_groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model[1].parameters()}


def test_warm_restarts_against_torchs_scheduler():
    peak, config = 0.1, Scheduler(warmup_fraction=0.0, eta_min=0.001, t_0=10, t_mult=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2, eta_min=0.001)
    expected = []
    for _ in range(75):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert [learning_rate(i, 75, peak, config) for i in range(75)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "kind", "decay"),
    [
        (Optimizer(), torch.optim.AdamW, 0.01),
        (Optimizer(type="adam"), torch.optim.Adam, 0.0),
        (Optimizer(type="sgd", momentum=0.9, nesterov=True, weight_decay=1e-4), torch.optim.SGD, 1e-4),
    ],
)
def test_update_rules(rule, kind, decay):
    optimizer = build_optimizer(nn.Conv2d(3, 4, 3), Trainer(optimizer=rule, learning_rate=0.2))
    assert type(optimizer) is kind
    assert [g["weight_decay"] for g in optimizer.param_groups] == [decay, 0.0]
    assert {g["lr"] for g in optimizer.param_groups} == {0.2}
    if kind is torch.optim.SGD:
        assert {(g["momentum"], g["nesterov"]) for g in optimizer.param_groups} == {(0.9, True)}
