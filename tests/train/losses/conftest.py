import pytest
import torch


@pytest.fixture
def batch():
    """Logits (3, 4, 12, 15) and class ids: blobs, some of them ignored; the last image lacks a class."""
    torch.manual_seed(0)
    blobs = torch.nn.functional.interpolate(torch.randn(3, 5, 4, 5), size=(12, 15), mode="nearest").argmax(1)
    target = blobs.masked_fill(blobs == 4, 255)
    target[2][target[2] == 3] = 0
    assert [len(image.unique()) for image in target] == [5, 5, 4]
    return 2 * torch.randn(3, 4, 12, 15), target
