import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from timm.layers import resample_abs_pos_embed

from segdeploy.encoders.resample import bicubic_matrix, resample_grid


@pytest.mark.parametrize(
    ("before", "after"), [((14, 14), (5, 7)), ((7, 7), (16, 32)), ((37, 37), (14, 64)), ((9, 4), (9, 1))]
)
def test_as_torch_resamples(before, after):
    grid = torch.randn(*before, 6)
    expected = F.interpolate(grid.permute(2, 0, 1)[None], size=after, mode="bicubic", antialias=True)[0]
    torch.testing.assert_close(resample_grid(grid, after), expected.permute(1, 2, 0), rtol=0, atol=1e-5)
    tables = resample_abs_pos_embed(grid.reshape(1, -1, 6), new_size=after, old_size=before, num_prefix_tokens=0)
    torch.testing.assert_close(resample_grid(grid, after).reshape(1, -1, 6), tables, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(100, 30), (30, 100)])
def test_as_pillow_resamples(before, after):
    row = np.random.default_rng(0).random((1, before), dtype=np.float32)
    expected = np.asarray(Image.fromarray(row).resize((after, 1), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(bicubic_matrix(before, after) @ row[0], expected[0], atol=1e-5)


def test_same_size_is_the_same_grid():
    grid = torch.randn(7, 5, 3)
    assert resample_grid(grid, (7, 5)) is grid
    np.testing.assert_allclose(bicubic_matrix(7, 7), np.eye(7), atol=1e-7)
