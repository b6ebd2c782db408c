"""The mask must move with the image: pictures whose colour tells the class are augmented and compared."""

from collections import Counter

import numpy as np
import pytest
import torch

from segdeploy.classes import ClassMap
from segdeploy.config.augmentation import (
    AutoAugmentation,
    Blur,
    Brightness,
    ColorJitter,
    Contrast,
    CopyPaste,
    Crop,
    CutMix,
    Gamma,
    Grayscale,
    HorizontalFlip,
    Rotate,
    Scale,
    VerticalFlip,
)
from segdeploy.data.augment import Augment
from segdeploy.data.augment_color import adjust_brightness, adjust_contrast
from segdeploy.data.scan import ScanReport
from segdeploy.model.spec import Preprocessing

SPEC = Preprocessing(height=48, width=64, resize="stretch", mean=(0.25, 0.5, 0.75), std=(0.5, 0.25, 0.125))
LEVELS = torch.tensor([[10, 200, 90], [250, 20, 60], [90, 120, 240]], dtype=torch.uint8)


def batch(n=4):
    """Blocky pictures, 8 x 8 pixels a block: image colour = LEVELS[class]."""
    blocks = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (n, 6, 8)))
    masks = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return LEVELS[masks], masks.to(torch.uint8)


def denormalise(x):
    mean, std = torch.tensor(SPEC.mean).view(3, 1, 1), torch.tensor(SPEC.std).view(3, 1, 1)
    return (x * std + mean) * 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_step_only_normalises():
    images, masks = batch()
    x, y = Augment((), SPEC)(images, masks, generator())
    expected = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(SPEC.mean).view(3, 1, 1)) / torch.tensor(SPEC.std).view(
        3, 1, 1
    )
    torch.testing.assert_close(x, expected)
    assert y.dtype == torch.int64
    assert torch.equal(y, masks.long())


@pytest.mark.parametrize(
    ("step", "axis"),
    [
        (HorizontalFlip(type="random_horizontal_flip", probability=1.0), 2),
        (VerticalFlip(type="random_vertical_flip", probability=1.0), 1),
    ],
)
def test_flip_is_exact(step, axis):
    images, masks = batch()
    x, y = Augment((step,), SPEC)(images, masks, generator())
    torch.testing.assert_close(denormalise(x), images.flip(axis).permute(0, 3, 1, 2).float(), atol=0.01, rtol=0)
    assert torch.equal(y, masks.flip(axis).long())


def test_flip_is_drawn_per_sample():
    images, masks = batch(32)
    _, y = Augment((HorizontalFlip(type="random_horizontal_flip"),), SPEC)(images, masks, generator())
    flipped = [torch.equal(a, b.flip(1).long()) for a, b in zip(y, masks, strict=True)]
    kept = [torch.equal(a, b.long()) for a, b in zip(y, masks, strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert 4 < sum(flipped) < 28


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (17, 64)])
def test_crop_is_an_exact_window(size):
    images, masks = batch()
    images = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator())
    x, y = Augment((Crop(type="random_crop", height=size[0], width=size[1]),), SPEC)(images, masks, generator(3))
    assert y.shape == (4, *size)
    places = set()
    for image, found, label, mask in zip(images, denormalise(x), y, masks, strict=True):
        windows = [
            (t, l)
            for t in range(48 - size[0] + 1)
            for l in range(64 - size[1] + 1)  # noqa: E741
            if (image[t : t + size[0], l : l + size[1]].permute(2, 0, 1).float() - found).abs().max() < 0.05
        ]
        assert len(windows) == 1
        t, l = windows[0]  # noqa: E741
        places.add((t, l))
        assert torch.equal(mask[t : t + size[0], l : l + size[1]].long(), label)
    assert len(places) > 1


@pytest.mark.parametrize(
    "steps",
    [
        (Scale(type="random_scale", min=0.5, max=2.0),),
        (Rotate(type="random_rotate", degree=40.0, probability=1.0),),
        (Rotate(type="random_rotate", degree=40.0), Blur(type="random_blur", probability=0.1)),
        (
            HorizontalFlip(type="random_horizontal_flip"),
            VerticalFlip(type="random_vertical_flip"),
            Rotate(type="random_rotate", degree=25.0),
            Scale(type="random_scale", min=0.6, max=1.8),
            Crop(type="random_crop", height=40, width=56),
        ),
    ],
)
def test_mask_moves_with_the_image(steps):
    images, masks = batch(16)
    x, y = Augment(steps, SPEC)(images, masks, generator())
    colors = torch.cat([LEVELS.float(), torch.tensor([SPEC.mean]) * 255])  # outside lies the mean colour
    distance = (denormalise(x).permute(0, 2, 3, 1).unsqueeze(3) - colors).abs().sum(-1)
    nearest, certain = distance.argmin(-1), distance.min(-1).values < 3
    label = torch.where(y == 255, 3, y)
    assert certain.float().mean() > 0.5
    assert (nearest == label)[certain].float().mean() > 0.995
    assert set(y.unique().tolist()) <= {0, 1, 2, 255}


def test_zooming_out_pads_with_ignore():
    images, masks = batch()
    _, y = Augment((Scale(type="random_scale", min=0.5, max=0.5),), SPEC)(images, masks, generator())
    assert (y == 255).float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_brightness_scales_and_mask_stays():
    images, masks = batch()
    images = (images * 0.5).to(torch.uint8)
    x, y = Augment((ColorJitter(type="random_color", brightness=0.4, contrast=0.0, saturation=0.0),), SPEC)(
        images, masks, generator()
    )
    factor = denormalise(x) / images.permute(0, 3, 1, 2)
    for one in factor:
        assert one.max() - one.min() < 0.01
        assert 0.6 <= one.mean() <= 1.4
    assert torch.equal(y, masks.long())


def test_saturation_zero_to_two_keeps_grey():
    grey = torch.randint(0, 256, (4, 48, 64, 1), dtype=torch.uint8, generator=generator()).expand(-1, -1, -1, 3)
    x, _ = Augment((ColorJitter(type="random_color", brightness=0.0, contrast=0.0, saturation=1.0),), SPEC)(
        grey, batch()[1], generator()
    )
    torch.testing.assert_close(denormalise(x), grey.permute(0, 3, 1, 2).float(), atol=0.05, rtol=0)


def test_same_generator_same_result():
    images, masks = batch()
    augment = Augment((Scale(type="random_scale"), ColorJitter(type="random_color")), SPEC)
    first, second, other = (augment(images, masks, generator(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


COLOR_STEPS = (
    lambda p: Blur(type="random_blur", probability=p),
    lambda p: Brightness(type="random_brightness", min=0.5, max=0.9, probability=p),
    lambda p: Contrast(type="random_contrast", min=0.5, max=0.9, probability=p),
)


@pytest.mark.parametrize("step", COLOR_STEPS)
def test_color_steps_are_drawn_per_sample_and_leave_the_mask(step):
    images, masks = batch(64)
    plain, _ = Augment((), SPEC)(images, masks, generator())
    for probability, low, high in ((0.0, 0, 0), (0.5, 16, 48), (1.0, 50, 64)):  # the least blur cannot be seen
        x, y = Augment((step(probability),), SPEC)(images, masks, generator())
        assert torch.equal(y, masks.long())
        changed = [(a - b).abs().max().item() > 1e-3 for a, b in zip(x, plain, strict=True)]
        assert low <= sum(changed) <= high
        if not probability:
            torch.testing.assert_close(x, plain, atol=1e-5, rtol=0)


def test_brightness_factors_fill_the_range():
    images = torch.full((256, 16, 16, 3), 100, dtype=torch.uint8)
    step = Brightness(type="random_brightness", min=0.5, max=2.0, probability=1.0)
    x, _ = Augment((step,), SPEC)(images, torch.zeros(256, 16, 16, dtype=torch.uint8), generator())
    factors = denormalise(x).mean((1, 2, 3)) / 100
    assert 0.5 - 1e-3 <= factors.min() < 0.53
    assert 1.97 < factors.max() <= 2.0 + 1e-3
    assert factors.mean().item() == pytest.approx(1.25, abs=0.08)


def test_steps_are_taken_in_their_order():
    images, masks = batch()
    bright = Brightness(type="random_brightness", min=2.0, max=2.0, probability=1.0)
    flat = Contrast(type="random_contrast", min=0.25, max=0.25, probability=1.0)
    x = images.permute(0, 3, 1, 2) / 255
    for steps in ((bright, flat), (flat, bright)):
        found = denormalise(Augment(steps, SPEC)(images, masks, generator())[0]) / 255
        expected = x
        for step in steps:
            change = adjust_brightness if step is bright else adjust_contrast
            expected = change(expected, torch.full((4,), step.min))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 16, 48), (1.0, 60, 64)])
def test_rotation_is_drawn_per_sample(probability, low, high):
    images, masks = batch(64)
    _, y = Augment((Rotate(type="random_rotate", degree=45.0, probability=probability),), SPEC)(
        images, masks, generator()
    )
    assert low <= sum(not torch.equal(a, b.long()) for a, b in zip(y, masks, strict=True)) <= high


def report(masks):
    """What a scan of these masks would say."""
    pixels = np.bincount(masks.numpy().ravel(), minlength=3)[:3]
    classes = ClassMap(names=("a", "b", "c"), colors=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    return ScanReport(classes, pixels, 0, pixels > 0, Counter({(48, 64): len(masks)}))


def every_step(probability):
    """Each kind of step once, all with one probability."""
    return (
        HorizontalFlip(type="random_horizontal_flip", probability=probability),
        VerticalFlip(type="random_vertical_flip", probability=probability),
        Rotate(type="random_rotate", degree=30.0, probability=probability),
        AutoAugmentation(type="auto_augmentation", method="rand_augment", probability=probability),
        CutMix(type="random_cut_mix", probability=probability),
        CopyPaste(type="random_copy_paste", classes=("b",), probability=probability),
        ColorJitter(type="random_color", hue=0.2, probability=probability),
        Blur(type="random_blur", probability=probability),
        Brightness(type="random_brightness", probability=probability),
        Contrast(type="random_contrast", probability=probability),
        Gamma(type="random_gamma", probability=probability),
        Grayscale(type="random_grayscale", probability=probability),
    )


def test_nothing_happens_where_all_probabilities_are_zero():
    images, masks = batch(8)
    plain, _ = Augment((), SPEC)(images, masks, generator())
    x, y = Augment(every_step(0.0), SPEC, report(masks))(images, masks, generator())
    torch.testing.assert_close(x, plain, atol=1e-3, rtol=0)
    assert torch.equal(y, masks.long())


MIXED = (
    Scale(type="random_scale", min=0.6, max=1.8),
    HorizontalFlip(type="random_horizontal_flip"),
    Rotate(type="random_rotate", degree=25.0),
    CutMix(type="random_cut_mix"),
    CopyPaste(type="random_copy_paste", classes=("b",)),
)


@pytest.mark.parametrize(
    "crop",
    [
        Crop(type="random_crop", height=40, width=56),
        Crop(type="random_crop", height=24, width=32, cat_max_ratio=0.5),
        Crop(type="random_crop", height=24, width=32, rare_class_probability=0.7),
        Crop(type="random_crop", height=64, width=96, cat_max_ratio=0.6, rare_class_probability=0.3),
    ],
)
def test_mask_stays_with_the_image_through_windows_and_mixing(crop):
    images, masks = batch(32)
    images[:, 20:26, 30:40], masks[:, 20:26, 30:40] = torch.tensor([0, 0, 0], dtype=torch.uint8), 255
    x, y = Augment((crop, *MIXED), SPEC, report(masks))(images, masks, generator())
    assert x.shape[2:] == y.shape[1:] == (crop.height, crop.width)
    assert set(y.unique().tolist()) <= {0, 1, 2, 255}
    colors = torch.cat([LEVELS.float(), torch.tensor([SPEC.mean]) * 255, torch.zeros(1, 3)])
    distance = (denormalise(x).permute(0, 2, 3, 1).unsqueeze(3) - colors).abs().sum(-1)
    nearest, certain = distance.argmin(-1), distance.min(-1).values < 3
    label = torch.where(y == 255, 3, y)
    assert certain.float().mean() > 0.4
    assert (nearest.clamp(max=3) == label)[certain].float().mean() > 0.995


@pytest.mark.parametrize("method", ["trivial_augment", "rand_augment", "auto_augment"])
def test_mask_moves_with_the_automatic_mixtures(method):
    images, masks = batch(64)
    images[:], masks[:] = 20, 0
    images[:, 8:20, 10:30], masks[:, 8:20, 10:30] = 240, 2
    step = AutoAugmentation(type="auto_augmentation", method=method)
    x, y = Augment((step,), SPEC)(images, masks, generator())
    assert set(y.unique().tolist()) <= {0, 2, 255}
    assert (y == 255).any()
    alike = []
    for image, label in zip(denormalise(x), y, strict=True):
        inside, outside = image.mean(0)[label == 2], image.mean(0)[label == 0]
        if len(inside) and abs(inside.mean() - outside.mean()) > 40:  # the mixture left something to see
            middle = (inside.median() + outside.median()) / 2
            bright = inside.median() > outside.median()
            alike.append((((image.mean(0) > middle) == bright) == (label == 2))[label != 255].float().mean().item())
    assert len(alike) > 40
    assert min(alike) > 0.95  # all but the soft edge


def test_automatic_mixtures_change_colors():
    images, masks = torch.full((140, 16, 16, 3), 100, dtype=torch.uint8), torch.zeros(140, 16, 16, dtype=torch.uint8)
    x, _ = Augment((AutoAugmentation(type="auto_augmentation"),), SPEC)(images, masks, generator())
    changed = ((denormalise(x) - 100).abs() > 2).all(1).flatten(1).all(1)
    assert 15 <= changed.sum() <= 45  # brightness, posterize and solarize: 3 of 14 operations, and not the weakest


def test_ids_that_are_far_apart_get_nothing_between_them():
    images, masks = batch(16)
    masks = masks * 100  # 0, 100, 200
    steps = (Scale(type="random_scale"), Rotate(type="random_rotate", degree=180.0, probability=1.0))
    _, y = Augment((*steps, CutMix(type="random_cut_mix")), SPEC)(images, masks, generator())
    assert set(y.unique().tolist()) == {0, 100, 200, 255}


def test_a_balanced_crop_shows_more_than_one_class():
    images, masks = batch(64)
    masks[:, :, :32] = 1
    crop = Crop(type="random_crop", height=32, width=32)
    balanced = crop.model_copy(update={"cat_max_ratio": 0.75})

    def shares(step):
        _, y = Augment((step,), SPEC)(images, masks, generator())
        return torch.stack([(y == label).flatten(1).float().mean(1) for label in range(3)]).amax(0)

    assert (shares(crop) > 0.75).sum() > 20
    assert (shares(balanced) <= 0.75).sum() >= 62  # ten tries are not always enough


def test_all_randomness_is_the_generator_s():
    images, masks = batch(6)
    crop = Crop(type="random_crop", height=32, width=32, cat_max_ratio=0.6, rare_class_probability=0.5)
    augment = Augment((crop, *every_step(0.6)), SPEC, report(masks))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, masks, generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = augment(images, masks, generator(3)), augment(images, masks, generator(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_given_batch_stays_as_it_is():
    images, masks = batch(6)
    kept = images.clone(), masks.clone()
    Augment(every_step(1.0), SPEC, report(masks))(images, masks, generator())
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


@pytest.mark.parametrize(
    "step",
    [
        CopyPaste(type="random_copy_paste"),
        Crop(type="random_crop", height=32, width=32, rare_class_probability=0.1),
    ],
)
def test_steps_about_classes_need_the_report(step):
    with pytest.raises(ValueError, match=step.type):
        Augment((step,), SPEC)(*batch(), generator())


@pytest.mark.parametrize(
    "steps",
    [
        *((step,) for step in every_step(0.7)),
        (Crop(type="random_crop", height=32, width=32, cat_max_ratio=0.5, rare_class_probability=0.5), *MIXED),
    ],
)
def test_nothing_waits_for_the_device(steps):
    """Tensors on the meta device hold no values: whatever asks for one fails."""
    augment = Augment(steps, SPEC, report(batch()[1]))
    images, masks = (part.to("meta") for part in batch(6))
    for seed in range(5):
        x, y = augment(images, masks, generator(seed))
        assert (x.device.type, y.device.type) == ("meta", "meta")
        assert x.shape[2:] == y.shape[1:]
