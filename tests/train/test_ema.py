import pytest
import torch
from torch import nn

from segdeploy.train.ema import build_ema


def test_average_against_a_plain_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    ema = build_ema(model, 0.8)
    expected = None
    for step in range(30):
        with torch.no_grad():
            model[0].weight.fill_(float(torch.randn(())))
            model[1].running_mean.fill_(float(step))
        ema.update_parameters(model)
        now = torch.tensor([model[0].weight.item(), float(step)])
        if expected is None:
            expected = now
        else:
            decay = min(0.8, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * now
    assert ema.module[0].weight.item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert ema.module[1].running_mean.item() == pytest.approx(expected[1].item(), rel=1e-4)
