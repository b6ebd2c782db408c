import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss

from segdeploy.train.losses.dice import Dice


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.25, 3.0, 2.0])])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 10.0])
def test_equals_smps_on_each_image_and_its_classes(weights, smooth, batch):
    logits, target = batch
    expected = []
    for image, labels in zip(logits, target, strict=True):
        present = [c for c in range(4) if (labels == c).any()]
        # smp adds its `smooth` to I and (P + T) / 2, which is twice as much on the scale of 2 I and P + T.
        theirs = DiceLoss(
            "multiclass",
            present,
            smooth=smooth / 2,
            ignore_index=255,
            class_weights=None if weights is None else weights.tolist(),
        )
        expected.append(theirs(image[None], labels[None]).item())
    assert Dice(weights, smooth)(logits, target).item() == pytest.approx(sum(expected) / 3, rel=1e-5)
