import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from segdeploy.train.losses.focal import Focal


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_equals_smps_softmax_focal_loss(gamma, batch):
    logits, target = batch
    labelled = target != 255
    each = softmax_focal_loss_with_logits(logits, target.masked_fill(~labelled, 0), gamma, reduction=None)
    assert Focal(gamma=gamma)(logits, target).item() == pytest.approx(each[labelled].mean().item(), rel=1e-5)


def test_class_weights_are_its_alpha(batch):
    """A weighted mean over the labelled pixels, one at a time."""
    logits, target = (t.numpy() for t in batch)
    alpha = [1.0, 0.25, 3.0, 2.0]
    total = weight = 0.0
    for n, y, x in zip(*np.nonzero(target != 255), strict=True):
        label = target[n, y, x]
        values = np.exp(logits[n, :, y, x].astype(np.float64))
        p = values[label] / values.sum()
        total -= alpha[label] * (1 - p) ** 2 * np.log(p)
        weight += alpha[label]
    assert Focal(torch.tensor(alpha))(*batch).item() == pytest.approx(total / weight, rel=1e-5)
