"""Every geometric step at fixed values against torchvision v2 on tv_tensors."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from segdeploy.data.augment_geometry import Moves, affine_maps, grid_of, sample_images, sample_labels

SIZE = (40, 56)


def pair():
    """An image of noise (3, 40, 56), and a mask of 4 x 4 blocks whose ids are far apart, some ignored."""
    blocks = np.random.default_rng(1).choice([0, 7, 200, 255], (10, 14))
    mask = torch.from_numpy(blocks).repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8)
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)), mask


def ours(window=SIZE, shift=(0.0, 0.0), **values):
    parts = {"scale": 1.0, "flip_x": 1.0, "flip_y": 1.0, "angle": 0.0} | values
    moves = Moves(**{name: torch.tensor([value]) for name, value in parts.items()})
    image, mask = pair()
    grid = grid_of(affine_maps(moves, SIZE, window, *(torch.tensor([s]) for s in shift)), window)
    return sample_images(image[None], grid)[0], sample_labels(mask[None], grid)[0]


def check(found, expected_image, expected_mask, agree=1.0):
    image, mask = found
    torch.testing.assert_close(image, torch.as_tensor(expected_image), atol=1e-3, rtol=0)
    assert set(mask.unique().tolist()) <= {0, 7, 200, 255}  # nothing between two ids
    assert (mask == torch.as_tensor(expected_mask)).float().mean() >= agree


def on_both(call, **fill):
    image, mask = pair()
    return call(tv_tensors.Image(image)), call(tv_tensors.Mask(mask), **fill)


@pytest.mark.parametrize(
    ("values", "call"),
    [
        ({"flip_x": -1.0}, v2.horizontal_flip),
        ({"flip_y": -1.0}, v2.vertical_flip),
        ({"flip_x": -1.0, "flip_y": -1.0}, lambda x: v2.vertical_flip(v2.horizontal_flip(x))),
    ],
)
def test_flips(values, call):
    check(ours(**values), *on_both(call))


@pytest.mark.parametrize("angle", [-170.0, -33.0, 5.0, 15.0, 90.0])
def test_rotation(angle):
    def call(x, **fill):
        return v2.rotate(x, angle, interpolation=InterpolationMode.BILINEAR, **fill)

    check(ours(angle=np.radians(angle).astype(np.float32).item()), *on_both(call, fill=255), agree=0.998)


@pytest.mark.parametrize("scale", [0.5, 0.81, 1.0, 1.37, 2.0])
def test_scale(scale):
    def call(x, **fill):
        return v2.affine(
            x, angle=0, translate=[0, 0], scale=scale, shear=[0, 0], interpolation=InterpolationMode.BILINEAR, **fill
        )

    check(ours(scale=scale), *on_both(call, fill=255), agree=0.99)  # halves fall on either side


def test_all_at_once_are_scaled_turned_and_flipped_in_this_order():
    def call(x, **fill):
        turned = v2.affine(
            x, angle=-20, translate=[0, 0], scale=1.3, shear=[0, 0], interpolation=InterpolationMode.BILINEAR, **fill
        )
        return v2.horizontal_flip(turned)

    check(ours(scale=1.3, angle=np.radians(20).item(), flip_x=-1.0), *on_both(call, fill=255), agree=0.998)


@pytest.mark.parametrize(("top", "left", "window"), [(0, 0, (24, 32)), (16, 24, (24, 32)), (7, 3, (17, 19))])
def test_crop(top, left, window):
    shift = (top - (SIZE[0] - window[0]) / 2, left - (SIZE[1] - window[1]) / 2)
    check(ours(window, shift), *on_both(lambda x: v2.crop(x, top, left, *window)))


def test_a_window_larger_than_the_picture_is_padded():
    found = ours((60, 80))
    check(found, *on_both(lambda x, fill=0: v2.pad(x, [12, 10], fill=fill), fill=255))


def test_a_batch_is_moved_one_by_one():
    image, mask = pair()
    angles = torch.tensor([0.1, -0.7, 2.0])
    one = torch.ones(3)
    grid = grid_of(affine_maps(Moves(one, one, one, angles), SIZE, SIZE, torch.zeros(3), torch.zeros(3)), SIZE)
    images, masks = sample_images(image.expand(3, -1, -1, -1), grid), sample_labels(mask.expand(3, -1, -1), grid)
    for i, angle in enumerate(angles.tolist()):
        alone = ours(angle=angle)
        torch.testing.assert_close(images[i], alone[0])
        assert torch.equal(masks[i], alone[1])
