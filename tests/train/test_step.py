"""Sums over batches against one whole batch, with torch's own mean as the reference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdeploy.config.trainer import Trainer
from segdeploy.train.distributed import Processes
from segdeploy.train.profile import Profile
from segdeploy.train.reduction import mean_of, sum_and_weight
from segdeploy.train.step import Batch, Step, masks_for

CPU = torch.device("cpu")


class Two(nn.Module):
    """A map at the image's size, and an auxiliary one of weight 0.4."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1)

    def forward(self, image):
        return self.first(image), ((0.4, self.second(image)),)


@pytest.fixture
def data():
    torch.manual_seed(0)
    images, masks = torch.randn(8, 3, 12, 16), torch.randint(0, 5, (8, 12, 16))
    masks[:3, 4:] = 255  # the first half of the batch has few labels
    masks[7] = 255
    return images, masks


def step_of(model, loss):
    trainer = Trainer.model_validate({"gradient_clipping": {"clipglobalnorm": None}})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Step(model, model, loss, optimizer, scaler, None, trainer, None, Processes(CPU), Profile(CPU))


@pytest.mark.parametrize("sizes", [[8], [4, 4], [3, 3, 2], [1] * 8])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 1.0, 3.0, 0.7, 1.5])])
def test_batches_add_up_to_one(sizes, weights, data):
    images, masks = data
    loss = nn.CrossEntropyLoss(weights, ignore_index=255, label_smoothing=0.1)
    model = Two()
    reference = copy.deepcopy(model)
    logits, ((share, more),) = reference(images)
    expected = loss(logits, masks), loss(logits, masks) + share * loss(more, masks)
    expected[1].backward()
    places = torch.arange(8).split(sizes)
    batches = [Batch(tuple(p.tolist()), images[p], masks[p]) for p in places]
    found = step_of(model, loss)(iter(batches), len(batches), 0.1, asked=False)
    assert found.values.tolist() == pytest.approx([e.item() for e in expected], rel=1e-5)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs - 0.1 * theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2])
def test_no_label_no_gradient(count, data):
    images, masks = data
    model = Two()
    before = copy.deepcopy(model.state_dict())
    batches = [Batch((0,), images, torch.full_like(masks, 255))] * count
    found = step_of(model, nn.CrossEntropyLoss(ignore_index=255))(batches, count, 0.1, asked=False)
    assert found.values.tolist() == [0, 0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rate_of_a_group_is_scaled(data):
    images, masks = data
    model = Two()
    step = step_of(model, nn.CrossEntropyLoss(ignore_index=255))
    step.optimizer.param_groups[0]["lr_scale"] = 0.25
    step([Batch((0,), images, masks)], 1, 0.1, asked=True)
    assert step.optimizer.param_groups[0]["lr"] == 0.025


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 1.0, 3.0, 0.7, 1.5])])
def test_sum_over_weight_is_the_mean(weights, smoothing, data):
    logits, masks = torch.randn(8, 5, 12, 16), data[1]
    loss = nn.CrossEntropyLoss(weights, ignore_index=255, label_smoothing=smoothing)
    total, weight = sum_and_weight(loss, logits, masks)
    assert float(total / weight) == pytest.approx(float(loss(logits, masks)), rel=1e-5)
    assert mean_of(loss, logits, masks)[0] == loss(logits, masks)


def test_masks_at_the_logits_stride_are_their_middle_pixels():
    masks = torch.arange(96).view(1, 8, 12) % 7
    found = masks_for(torch.zeros(1, 3, 4, 6), masks)
    assert torch.equal(found, masks[:, 1::2, 1::2])
    assert torch.equal(masks_for(torch.zeros(1, 3, 8, 12), masks), masks)
    thirds = F.interpolate(masks[:, None].double(), (3, 4), mode="nearest-exact")[:, 0].long()
    assert torch.equal(masks_for(torch.zeros(1, 3, 3, 4), masks), thirds)
