"""Windows with class balance, and about rare classes, against plain NumPy loops."""

import numpy as np
import pytest
import torch

from segdeploy.config.augmentation import Crop
from segdeploy.data.augment_geometry import Moves, affine_maps, grid_of, sample_labels
from segdeploy.data.augment_window import TRIES, choose_windows, count_labels, draw_pixels, largest_share

SIZE = (60, 80)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def crop(size, **keys):
    return Crop(type="random_crop", height=size[0], width=size[1], **keys)


def still(count, scale=1.0, angle=0.0):
    one = torch.ones(count)
    return Moves(one * scale, one, one, one * angle)


def coarse(count, seed=0):
    """Masks where class 0 covers much, some patches are of other classes, and a strip is ignored."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), np.uint8)
    for mask in masks:
        for _ in range(rng.integers(1, 8)):
            top, left = rng.integers(0, 50), rng.integers(0, 70)
            mask[top : top + rng.integers(5, 30), left : left + rng.integers(5, 30)] = rng.choice([1, 2, 250])
        mask[:, : rng.integers(0, 30)] = 255
    return torch.from_numpy(masks)


def share_of(window):
    """The largest class's share, by a plain count."""
    labels, counts = np.unique(window, return_counts=True)
    counts = counts[labels != 255]
    return counts.max() / counts.sum() if len(counts) else 1.0


def test_counts_and_shares_are_those_of_numpy():
    masks = torch.cat([coarse(20), torch.full((1, *SIZE), 255, dtype=torch.uint8)])
    counts = count_labels(masks)
    assert all(
        np.array_equal(c, np.bincount(m.ravel(), minlength=256)) for c, m in zip(counts, masks.numpy(), strict=True)
    )
    assert largest_share(masks).tolist() == pytest.approx([share_of(m) for m in masks.numpy()])


@pytest.mark.parametrize("window", [(24, 32), (60, 40), (17, 19)])
def test_balanced_crop_is_that_of_a_plain_loop(window):
    masks, ratio = coarse(64), 0.7
    shift_y, shift_x = choose_windows(crop(window, cat_max_ratio=ratio), None, still(64), masks, generator(3))
    draws = generator(3)
    places = torch.stack([torch.rand(64, generator=draws) for _ in range(2 * TRIES)]).double()
    places = places.view(TRIES, 2, 64).numpy()
    tried = []
    for i, mask in enumerate(masks.numpy()):
        shares = []
        for where in places[:, :, i]:
            top, left = (round((w - 0.5) * (f - s) + (f - s) / 2) for w, f, s in zip(where, SIZE, window, strict=True))
            shares.append((share_of(mask[top : top + window[0], left : left + window[1]]), top, left))
            if shares[-1][0] <= ratio:
                break
        else:
            shares.sort(key=lambda one: one[0])
            shares.append(shares[0])
        _, top, left = shares[-1]
        assert shift_y[i] + (SIZE[0] - window[0]) / 2 == top
        assert shift_x[i] + (SIZE[1] - window[1]) / 2 == left
        tried.append(len(shares))
    assert 1 in tried
    assert max(tried) > 5  # the data are such that several tries were needed


@pytest.mark.parametrize(("scale", "angle"), [(1.0, 0.0), (1.6, 0.3), (0.7, -0.2)])
def test_share_is_kept_wherever_a_try_keeps_it(scale, angle):
    masks, moves, window, ratio = coarse(100, 5), still(100, scale, angle), (32, 32), 0.75

    def shares(shift_y, shift_x):
        grid = grid_of(affine_maps(moves, SIZE, window, shift_y, shift_x), window)
        return np.array([share_of(w) for w in sample_labels(masks, grid).numpy()])

    plain = shares(*choose_windows(crop(window), None, moves, masks, generator()))
    kept = shares(*choose_windows(crop(window, cat_max_ratio=ratio), None, moves, masks, generator()))
    assert (kept <= np.maximum(plain, ratio) + 1e-6).all()  # the first of the tries is the plain one
    assert ((kept > ratio) < (plain > ratio)).sum() > 5
    assert np.array_equal(kept[plain <= ratio], plain[plain <= ratio])


def test_large_windows_are_judged_on_a_lattice():
    mask = torch.zeros(1, 600, 900, dtype=torch.uint8)
    mask[:, :, 300:] = 1
    window = crop((512, 384), cat_max_ratio=0.7)
    for seed in range(5):
        _, shift_x = choose_windows(window, None, still(1), mask, generator(seed))
        left = round(shift_x.item() + (900 - 384) / 2)
        zeros = min(max(300 - left, 0), 384) / 384
        assert max(zeros, 1 - zeros) <= 0.7 + 2 / 128


def test_pixels_are_drawn_by_class_and_then_evenly():
    mask = np.full((1, 20, 30), 255, np.uint8)
    mask[0, :10], mask[0, 12:14, :10], mask[0, 19, 29] = 0, 3, 7
    masks = torch.from_numpy(mask).repeat(6000, 1, 1)
    weights = torch.tensor([1.0, 5.0, 0, 2.0, 0, 0, 0, 5.0])  # class 1 does not occur
    row, column, found = draw_pixels(masks, weights, generator())
    assert found.all()
    drawn = mask[0, row.numpy(), column.numpy()]
    shares = {label: (drawn == label).mean() for label in (0, 3, 7)}
    assert shares == pytest.approx({0: 1 / 8, 3: 2 / 8, 7: 5 / 8}, abs=0.03)
    places = np.zeros((20, 30))
    np.add.at(places, (row.numpy(), column.numpy()), 1)
    of_three = places[12:14, :10].ravel()
    assert of_three.sum() == (drawn == 3).sum()
    assert (np.abs(of_three - of_three.mean()) < 5 * np.sqrt(of_three.mean())).all()
    assert places[19, 29] == (drawn == 7).sum()


def test_nothing_is_found_where_no_class_has_a_weight():
    masks = torch.full((3, 8, 8), 255, dtype=torch.uint8)
    masks[1] = 1
    masks[2] = 0
    row, column, found = draw_pixels(masks, torch.tensor([0.0, 1.0]), generator())
    assert found.tolist() == [False, True, False]
    assert ((row >= 0) & (row < 8) & (column >= 0) & (column < 8)).all()


WARP = torch.tensor([[1.0, 0.2, 3.0], [0.1, 1.0, -4.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("scale", "angle", "warp"), [(1.0, 0.0, None), (2.0, 0.5, None), (0.6, 0.0, None), (1.3, -0.4, WARP)]
)
def test_windows_lie_about_the_rare_class(scale, angle, warp):
    masks = torch.zeros(200, *SIZE, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    for mask in masks:
        top, left = rng.integers(15, 43), rng.integers(20, 58)
        mask[top : top + 2, left : left + 2] = 1
    moves = still(200, scale, angle)
    if warp is not None:
        moves = Moves(moves.scale, moves.flip_x, moves.flip_y, moves.angle, warp.repeat(200, 1, 1))
    pixels = torch.tensor([200 * 4796, 800])

    def shown(probability):
        shifts = choose_windows(crop((16, 16), rare_class_probability=probability), pixels, moves, masks, generator(1))
        grid = grid_of(affine_maps(moves, SIZE, (16, 16), *shifts), (16, 16))
        return (sample_labels(masks, grid) == 1).flatten(1).any(1).float().mean().item()

    chance, half, always = shown(0.0), shown(0.5), shown(1.0)
    assert always > 0.99  # class 0 is drawn with a probability of 1 / 1200
    assert half == pytest.approx((chance + 1) / 2, abs=0.1)


def test_a_window_about_a_rare_class_stays_inside_the_picture_and_on_whole_pixels():
    masks = torch.zeros(2, *SIZE, dtype=torch.uint8)
    masks[0, 0, 0], masks[1, 59, 41] = 1, 1
    window = crop((24, 32), rare_class_probability=1.0)
    shift_y, shift_x = choose_windows(window, torch.tensor([0, 2]), still(2), masks, generator())
    assert (shift_y + (60 - 24) / 2).tolist() == [0, 36]
    assert (shift_x + (80 - 32) / 2).tolist() == [0, 41 - 15]
