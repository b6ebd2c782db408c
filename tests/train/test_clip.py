import numpy as np
import pytest
import torch
from torch import nn

from segdeploy.config.optimizer import GradientClipping
from segdeploy.train.clip import clip


@pytest.fixture
def parameters():
    torch.manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape)) for shape in [(3, 4), (5,), (2,)]]
    for parameter in made[:2]:
        parameter.grad = torch.randn_like(parameter) * 3  # the last one has none
    return made


def gradients(parameters):
    return [p.grad.numpy().copy() for p in parameters[:2]]


def test_all_together(parameters):
    before = gradients(parameters)
    norm = np.sqrt(sum((g**2).sum() for g in before))
    assert clip(parameters, GradientClipping(clipglobalnorm=0.5)).item() == pytest.approx(norm, rel=1e-6)
    for found, old in zip(gradients(parameters), before, strict=True):
        np.testing.assert_allclose(found, old * 0.5 / norm, rtol=1e-5)


def test_each_by_itself(parameters):
    before = gradients(parameters)
    norms = [np.linalg.norm(g) for g in before]
    limit = float(np.mean(norms))
    assert clip(parameters, GradientClipping(clipglobalnorm=None, clipnorm=limit)) is None
    for found, old, norm in zip(gradients(parameters), before, norms, strict=True):
        np.testing.assert_allclose(found, old * min(1, limit / norm), rtol=1e-5)


def test_each_number(parameters):
    before = gradients(parameters)
    clip(parameters, GradientClipping(clipglobalnorm=None, clipvalue=0.75))
    for found, old in zip(gradients(parameters), before, strict=True):
        np.testing.assert_array_equal(found, np.clip(old, -0.75, 0.75))


def test_no_limit_changes_nothing(parameters):
    before = gradients(parameters)
    assert clip(parameters, GradientClipping(clipglobalnorm=None)) is None
    for found, old in zip(gradients(parameters), before, strict=True):
        np.testing.assert_array_equal(found, old)
