"""Against the paper's equations, pixel by pixel."""

import numpy as np
import pytest
import torch

from segdeploy.train.losses.boundary import Boundary


def largest(maps, y, x, side):
    reach = side // 2
    return maps[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].max()


def contour(own, labelled, side):
    """Equations 2 and 3: how much more of another class there is in the window than at its middle."""
    others = np.where(labelled, 1 - own, 0)
    cells = [[largest(others, y, x, side) - others[y, x] for x in range(own.shape[1])] for y in range(own.shape[0])]
    return np.where(labelled, cells, 0)


def f1(truth, found, side):
    """Equations 4 to 7."""
    near_truth, near_found = (
        np.array([[largest(m, y, x, side) for x in range(m.shape[1])] for y in range(m.shape[0])])
        for m in (truth, found)
    )
    precision = (found * near_truth).sum() / found.sum()
    recall = (truth * near_found).sum() / truth.sum()
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("weights", [None, [1.0, 0.25, 3.0, 2.0]])
@pytest.mark.parametrize(("theta0", "theta"), [(3, 5), (5, 3), (3, 7)])
def test_equals_a_plain_loop(theta0, theta, weights, batch):
    logits, target = (t.numpy() for t in batch)
    images = []
    for image, labels in zip(logits.astype(np.float64), target, strict=True):
        probabilities = np.exp(image) / np.exp(image).sum(0)
        values, importance = [], []
        for c in range(4):
            truth = contour((labels == c).astype(float), labels != 255, theta0)
            if truth.any():
                found = contour(probabilities[c], labels != 255, theta0)
                values.append(1 - f1(truth, found, theta))
                importance.append(1 if weights is None else weights[c])
        images.append(np.average(values, weights=importance))
    loss = Boundary(None if weights is None else torch.tensor(weights), theta0, theta)
    assert loss(*batch).item() == pytest.approx(np.mean(images), rel=1e-5)


def test_contours_a_little_beside_each_other_match():
    """An edge one pixel off is as good as right, one four pixels off is not."""
    target = torch.zeros(1, 12, 20, dtype=torch.long)
    target[:, :, 10:] = 1

    def loss(edge):
        logits = torch.full((1, 2, 12, 20), -20.0)
        logits[:, 0, :, :edge] = logits[:, 1, :, edge:] = 20
        return Boundary()(logits, target).item()

    assert loss(10) == pytest.approx(loss(11), abs=1e-5) == pytest.approx(0, abs=1e-5)
    assert loss(14) > 0.9


def test_an_image_of_one_class_has_no_contour():
    target = torch.ones(1, 8, 8, dtype=torch.long)
    target[:, :, 4:] = 255
    assert Boundary().weights(target).tolist() == [0]
    assert Boundary()(torch.randn(1, 3, 8, 8), target) == 0
