"""Photometric steps at fixed values against torchvision v2, image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from segdeploy.config.augmentation import ColorJitter, Gamma, Grayscale
from segdeploy.data.augment_color import (
    adjust_brightness,
    adjust_color,
    adjust_contrast,
    adjust_gamma,
    adjust_hue,
    gaussian_blur,
    recolor,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n=6, size=(33, 47)):
    return torch.rand(n, 3, *size, generator=generator())


FACTORS = torch.tensor([0.0, 0.5, 0.9, 1.0, 1.3, 2.0])
CHANGES = {
    "brightness": (adjust_brightness, reference.adjust_brightness, FACTORS),
    "contrast": (adjust_contrast, reference.adjust_contrast, FACTORS),
    "gamma": (adjust_gamma, reference.adjust_gamma, FACTORS + 0.2),
    "hue": (adjust_hue, reference.adjust_hue, torch.tensor([-0.5, -0.23, -0.01, 0.0, 0.1, 0.5])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_color_against_torchvision(name):
    ours, theirs, values = CHANGES[name]
    x = noise()
    x[:, :, 0] = x[:, :1, 0]  # a line of grey
    x[:, :, 1:3] = 0.0
    x[:, :, 3:5] = 1.0
    x[:, 1, 7] = x[:, 0, 7]  # two channels alike
    found = ours(x.clone(), values)
    for image, result, value in zip(x, found, values.tolist(), strict=True):
        torch.testing.assert_close(result, theirs(image, value), atol=2e-4, rtol=0)  # its red weighs 0.2989


def test_brightness_contrast_and_saturation_in_one_go():
    x = noise() * 0.3 + 0.35  # nothing is clipped on the way, which torchvision does after every step
    brightness, contrast, saturation = (torch.rand(6, generator=generator(seed)) * 0.4 + 0.8 for seed in (1, 2, 3))
    found = adjust_color(x, brightness, contrast, saturation)
    for i, image in enumerate(x):
        expected = reference.adjust_brightness(image, brightness[i].item())
        expected = reference.adjust_contrast(expected, contrast[i].item())
        expected = reference.adjust_saturation(expected, saturation[i].item())
        torch.testing.assert_close(found[i], expected, atol=3e-4, rtol=0)


def test_grayscale_against_torchvision():
    x = noise()
    found = recolor(x.clone(), Grayscale(type="random_grayscale", probability=1.0), generator())
    torch.testing.assert_close(found, reference.rgb_to_grayscale(x, 3), atol=2e-4, rtol=0)


def test_hue_is_drawn_within_its_bounds():
    x = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).repeat(512, 1, 2, 2)  # red, whose hue is 0
    step = ColorJitter(type="random_color", brightness=0.0, contrast=0.0, saturation=0.0, hue=1 / 6)
    found = recolor(x, step, generator())[:, :, 0, 0]
    torch.testing.assert_close(found.amax(1), torch.full((512,), 0.8))
    assert (found.argmax(1) == 0).all()  # from magenta to yellow
    towards = (found[:, 1] - found[:, 2]) / 0.6  # -1 magenta, 1 yellow
    assert towards.min() < -0.95
    assert towards.max() > 0.95
    assert abs(towards.mean().item()) < 0.1


@pytest.mark.parametrize(
    "step",
    [
        ColorJitter(type="random_color", hue=0.3, probability=0.25),
        Gamma(type="random_gamma", min=0.4, max=0.6, probability=0.25),
        Grayscale(type="random_grayscale", probability=0.25),
    ],
)
def test_a_share_of_the_images_is_changed(step):
    x = noise(400, (4, 4))
    found = recolor(x.clone(), step, generator(5))
    changed = ((found - x).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
    assert changed == pytest.approx(0.25, abs=0.07)


def test_a_jitter_of_all_images_draws_no_more_than_three_values_each():
    mine, plain = generator(), generator()
    recolor(noise(), ColorJitter(type="random_color"), mine)
    torch.rand(6, generator=plain), torch.rand(6, generator=plain), torch.rand(6, generator=plain)
    assert torch.equal(mine.get_state(), plain.get_state())


@pytest.mark.parametrize("kernel_size", [3, 5, 31])
@pytest.mark.parametrize("channels_last", [False, True])
def test_blur_against_torchvision(kernel_size, channels_last):
    x, sigmas = noise(), torch.tensor([0.1, 0.3, 0.5, 1.0, 1.7, 2.0])
    given = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    found = gaussian_blur(given, sigmas, kernel_size)
    for image, result, sigma in zip(x, found, sigmas.tolist(), strict=True):
        expected = reference.gaussian_blur(image, [kernel_size, kernel_size], [sigma, sigma])
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
