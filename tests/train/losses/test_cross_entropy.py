import pytest
import torch

from segdeploy.train.losses.cross_entropy import CrossEntropy


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.25, 3.0, 2.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equals_torchs(weights, smoothing, batch):
    """Value and gradient, to a rounding of float32."""
    theirs = torch.nn.CrossEntropyLoss(weights, ignore_index=255, label_smoothing=smoothing)
    found = []
    for loss in (CrossEntropy(weights, smoothing), theirs):
        logits = batch[0].clone().requires_grad_(True)
        value = loss(logits, batch[1])
        value.backward()
        found.append((value.detach(), logits.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)
