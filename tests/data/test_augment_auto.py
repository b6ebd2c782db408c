"""The automatic mixtures against torchvision's own: tables, draws, and what each operation does."""

from collections import Counter

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from segdeploy.config.augmentation import AutoAugmentation
from segdeploy.data.augment_auto import (
    NAMES,
    POLICIES,
    draw_operations,
    moves_pixels,
    recolor_each,
    strength,
    warp_of,
)
from segdeploy.data.augment_geometry import Moves, affine_maps, grid_of, sample_images, sample_labels

SIZE = (40, 56)
CLASSES = {"trivial_augment": v2.TrivialAugmentWide, "rand_augment": v2.RandAugment, "auto_augment": v2.AutoAugment}
SIGNED = [name for name, (_, signed) in v2.TrivialAugmentWide._AUGMENTATION_SPACE.items() if signed]


def draw(method, count=3000, probability=1.0, seed=0):
    step = AutoAugmentation(type="auto_augmentation", method=method, probability=probability)
    return draw_operations(step, count, SIZE, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("method", "bins"), [("trivial_augment", 31), ("rand_augment", 31), ("auto_augment", 10)])
def test_strengths_are_those_of_torchvision(method, bins):
    for name, (of, signed) in CLASSES[method]._AUGMENTATION_SPACE.items():
        expected = of(bins, *SIZE)
        if expected is None:
            assert not signed
            continue
        assert signed == (name in SIGNED)
        found = [strength(name, i / (bins - 1), SIZE, wide=method == "trivial_augment") for i in range(bins)]
        assert found == pytest.approx(expected.tolist(), abs=1e-5), name


def test_names_and_policies_are_those_of_torchvision():
    assert set(NAMES) == set(v2.TrivialAugmentWide._AUGMENTATION_SPACE) == set(v2.RandAugment._AUGMENTATION_SPACE)
    theirs = v2.AutoAugment()._policies
    assert [tuple((n, p, m or 0) for n, p, m in pair) for pair in theirs] == list(POLICIES)


def apply(name, strong, x):
    """What torchvision's mixtures do for an operation."""
    mixture = v2.AutoAugment()
    return mixture._apply_image_or_video_transform(x, name, strong, InterpolationMode.BILINEAR, mixture._fill)


@pytest.mark.parametrize(
    ("name", "strong"),
    [
        ("ShearX", 0.3), ("ShearX", -0.99), ("ShearY", 0.2), ("ShearY", -0.5), ("TranslateX", 17.8),
        ("TranslateX", -5.2), ("TranslateY", 9.0), ("TranslateY", -32.0), ("Rotate", 30.0), ("Rotate", -135.0),
    ],
)  # fmt: skip
def test_operations_that_move_pixels_are_those_of_torchvision(name, strong):
    seeded = torch.Generator().manual_seed(0)
    image = torch.rand(3, *SIZE, generator=seeded)
    mask = torch.tensor([0, 9, 200, 255], dtype=torch.uint8)[torch.randint(0, 4, (10, 14), generator=seeded)]
    mask = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    one = torch.ones(1)
    warp = warp_of([[(name, strong)]], SIZE)
    grid = grid_of(affine_maps(Moves(one, one, one, 0 * one, warp), SIZE, SIZE, 0 * one, 0 * one), SIZE)
    torch.testing.assert_close(sample_images(image[None], grid)[0], apply(name, strong, image), atol=1e-3, rtol=0)
    if name == "Rotate":
        expected = functional.rotate(tv_tensors.Mask(mask), strong, fill=255)
    else:
        shear = [torch.atan(torch.tensor(strong)).rad2deg().item() if name == f"Shear{axis}" else 0 for axis in "XY"]
        moved = [int(strong) if name == f"Translate{axis}" else 0 for axis in "XY"]
        center = [0, 0] if any(shear) else None
        expected = functional.affine(tv_tensors.Mask(mask), 0, moved, 1.0, shear, fill=255, center=center)
    found = sample_labels(mask[None], grid)[0]
    assert set(found.unique().tolist()) <= {0, 9, 200, 255}
    assert (found == expected).float().mean() > 0.99  # halves fall on either side
    assert moves_pixels([[], [(name, strong)]])


def test_operations_that_move_pixels_follow_one_another():
    image = torch.zeros(3, *SIZE)
    image[:, 18:22, 30:34] = 1  # far from the borders, and wide: sampled twice it is only a little softer
    chain = [("Rotate", 20.0), ("TranslateX", 6.0), ("ShearY", 0.2)]
    one = torch.ones(1)
    moves = Moves(one, one, one, 0 * one, warp_of([chain], SIZE))
    found = sample_images(image[None], grid_of(affine_maps(moves, SIZE, SIZE, 0 * one, 0 * one), SIZE))[0]
    expected = image
    for name, strong in chain:
        expected = apply(name, strong, expected)
    places = torch.stack(torch.meshgrid(*(torch.arange(float(s)) for s in SIZE), indexing="ij"))
    centres = [(places * x[0]).sum((1, 2)) / x[0].sum() for x in (found, expected)]
    torch.testing.assert_close(*centres, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("name", "strong"),
    [
        ("Brightness", 0.6), ("Brightness", -0.6), ("Color", 0.9), ("Color", -0.99), ("Contrast", 0.5),
        ("Contrast", -0.9), ("Sharpness", 0.9), ("Sharpness", -0.9), ("Posterize", 4), ("Posterize", 2),
        ("Solarize", 0.5), ("Solarize", 1.0), ("AutoContrast", 0.0), ("Equalize", 0.0), ("Invert", 0.0),
    ],
)  # fmt: skip
def test_operations_that_change_colors_are_those_of_torchvision(name, strong):
    x = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    found = recolor_each(x.clone(), [[(name, strong)], []])
    torch.testing.assert_close(found[0], apply(name, strong, x[0]))
    torch.testing.assert_close(found[1], x[1])
    assert not moves_pixels([[(name, strong)]])


def test_trivial_augment_draws_one_operation_of_any_strength():
    drawn = draw("trivial_augment")
    assert {len(of_one) for of_one in drawn} == {1}
    counts = Counter(name for ((name, _),) in drawn)
    assert set(counts) == set(NAMES)
    assert all(abs(c - 3000 / 14) < 5 * (3000 / 14) ** 0.5 for c in counts.values())
    angles = {round(abs(strong) / 4.5, 3) for ((name, strong),) in drawn if name == "Rotate"}
    assert angles <= set(range(31))
    assert len(angles) > 25
    negative = [strong < 0 for ((name, strong),) in drawn if name in SIGNED and strong]
    assert sum(negative) / len(negative) == pytest.approx(0.5, abs=0.06)


def test_rand_augment_draws_two_operations_of_one_strength():
    drawn = draw("rand_augment")
    assert {len(of_one) for of_one in drawn} == {2}
    assert {abs(s) for of_one in drawn for name, s in of_one if name == "Rotate"} == {9.0}
    assert len(Counter(tuple(name for name, _ in of_one) for of_one in drawn)) > 150  # of 196 pairs


def test_auto_augment_draws_pairs_with_their_probabilities():
    drawn = draw("auto_augment", 5000)
    inverted = sum(any(name == "Invert" for name, _ in of_one) for of_one in drawn)
    assert inverted / 5000 == pytest.approx(3 / 25 * 0.6, abs=0.02)
    alone = {tuple(name for name, _ in of_one) for of_one in drawn}
    allowed = [[n for n, p, _ in pair if p > 0] for pair in POLICIES]
    assert all(any(set(names) <= set(pair) for pair in allowed) for names in alone)


def test_a_share_of_the_samples_is_changed():
    assert sum(map(bool, draw("trivial_augment", probability=0.3))) / 3000 == pytest.approx(0.3, abs=0.04)
    assert not any(draw("rand_augment", probability=0.0))
