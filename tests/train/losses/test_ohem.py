"""Against the loss of HRNet's and DDRNet's authors, in NumPy, on each image of enough pixels."""

import numpy as np
import pytest
import torch

from segdeploy.train.losses.ohem import Ohem


def by_hand(logits, labels, threshold, min_kept, weights):
    values = np.exp(logits.astype(np.float64)).reshape(4, -1)
    ids = labels.reshape(-1)
    own = np.array([values[i, n] / values[:, n].sum() if i != 255 else np.nan for n, i in enumerate(ids)])
    own, ids = own[ids != 255], ids[ids != 255]
    limit = max(np.sort(own)[min_kept] if min_kept < len(own) else np.inf, threshold)
    kept = own < limit
    if not kept.any():
        return 0.0, 0
    return np.average(-np.log(own[kept]), weights=np.array(weights)[ids[kept]]), kept.sum()


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0], [1.0, 0.25, 3.0, 2.0]])
@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 1), (0.05, 60), (0.3, 60), (1.0, 1), (1e-9, 10_000)])
def test_equals_the_mean_over_the_hardest_pixels(weights, threshold, min_kept, batch):
    logits, target = (t.numpy() for t in batch)
    found = [by_hand(i, t, threshold, min_kept, weights) for i, t in zip(logits, target, strict=True)]
    assert {kept for _, kept in found} != {0}
    loss = Ohem(torch.tensor(weights), threshold, min_kept)(*batch).item()
    assert loss == pytest.approx(np.mean([value for value, _ in found]), rel=1e-5)
    if weights[1] == 1:
        assert Ohem(None, threshold, min_kept)(*batch).item() == pytest.approx(loss, rel=1e-6)


def test_as_many_pixels_stay_as_are_asked_for():
    flat = torch.zeros(1, 2, 4, 4, requires_grad=True)
    flat.data[:, 0] = 3.0  # all equally sure
    for few in (1, 16, 100):
        assert Ohem(None, 0.7, few)(flat, torch.zeros(1, 4, 4, dtype=torch.long)).item() > 0


def test_easy_pixels_do_not_learn(batch):
    logits = batch[0].requires_grad_(True)
    Ohem(None, 0.3, 1)(logits, batch[1]).backward()
    own = logits.softmax(1).gather(1, batch[1].clamp_max(3)[:, None])[:, 0]
    moved = logits.grad.abs().sum(1) > 0
    assert torch.equal(moved, (own < 0.3) & (batch[1] != 255))
    assert moved.any()
