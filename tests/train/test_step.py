"""Sums over batches against one whole batch, with torch's own mean as the reference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdeploy.bundle import open_model
from segdeploy.config.trainer import Trainer
from segdeploy.model.segmenter import build
from segdeploy.train.distributed import Processes
from segdeploy.train.learner import Learner
from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.profile import Profile
from segdeploy.train.step import Batch, Step, map_sizes, scale_masks

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


def step_of(model, loss, learner=None, **keys):
    trainer = Trainer.model_validate({"gradient_clipping": {"clipglobalnorm": None}, **keys})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    ours = CrossEntropy(loss.weight, loss.label_smoothing)
    return Step(learner or model, model, ours, optimizer, scaler, None, trainer, None, Processes(CPU), Profile(CPU))


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


def test_masks_at_the_logits_stride_are_their_middle_pixels():
    masks = torch.arange(96).view(1, 8, 12) % 7
    assert torch.equal(scale_masks(masks, (4, 6)), masks[:, 1::2, 1::2])
    thirds = F.interpolate(masks[:, None].double(), (3, 4), mode="nearest-exact")[:, 0].long()
    assert torch.equal(scale_masks(masks, (3, 4)), thirds)


def test_loss_at_the_decoder_compares_each_map_at_its_own_size(tiny_run):
    """The loss of one step is that of the small logits; norms and modes are as before."""
    segmenter = build(open_model(tiny_run).spec).train()
    segmenter.encoder.eval()
    modes = [module.training for module in segmenter.modules()]
    before = copy.deepcopy(segmenter.state_dict())
    images = torch.randn(2, 3, 64, 96)
    ((height, width),) = map_sizes(Learner(segmenter, upsample=False), images[:1])
    assert (height, width) == (16, 24)
    assert [module.training for module in segmenter.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    segmenter.eval()  # nothing drops out
    masks = torch.randint(0, 7, (2, 64, 96))
    masks[:, :32] = 255
    loss = nn.CrossEntropyLoss(ignore_index=255)
    step = step_of(segmenter, loss, Learner(segmenter, upsample=False), loss_at="decoder")
    found = step([Batch((0, 1), images, masks)], 1, 0.0, asked=False).values[0]

    logits = segmenter.forward_aux(images, upsample=False)[0].detach()
    assert float(found) == pytest.approx(float(loss(logits, masks[:, 2::4, 2::4])), rel=1e-5)
