import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import LovaszLoss
from segmentation_models_pytorch.losses.lovasz import _lovasz_softmax_flat

from segdeploy.train.losses.lovasz import Lovasz


def test_equals_smps(batch):
    """Value and gradient; smp carries the authors' code."""
    found = []
    for loss in (Lovasz(), LovaszLoss("multiclass", per_image=True, ignore_index=255)):
        logits = batch[0].clone().requires_grad_(True)
        value = loss(logits, batch[1])
        value.backward()
        found.append((value.detach(), logits.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_class_weights(batch):
    weights = [1.0, 0.25, 3.0, 2.0]
    images = []
    for image, labels in zip(*batch, strict=True):
        flat = labels.flatten()
        probabilities = image.softmax(0).flatten(1).T[flat != 255]
        present = [c for c in range(4) if (labels == c).any()]
        each = [_lovasz_softmax_flat(probabilities, flat[flat != 255], [c]).item() for c in present]
        images.append(np.average(each, weights=[weights[c] for c in present]))
    assert Lovasz(torch.tensor(weights))(*batch).item() == pytest.approx(np.mean(images), rel=1e-5)


def test_one_minus_iou_where_the_network_is_sure():
    target = torch.tensor([[[0, 0, 0, 1, 1, 255]]])
    logits = torch.full((1, 2, 1, 6), -60.0)
    for place, label in enumerate([0, 0, 1, 1, 0, 1]):
        logits[0, label, 0, place] = 60
    assert Lovasz()(logits, target).item() == pytest.approx(1 - (2 / 4 + 1 / 3) / 2)
