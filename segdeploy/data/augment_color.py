"""Photometric changes of a batch, each image by a value of its own.

torchvision's v2 functions take one value for all images, so that a batch would become a loop; these take one value per
image, do the same arithmetic, and are tested to give what v2 gives.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from segdeploy.config.augmentation import Blur, Brightness, ColorJitter, Contrast, Gamma, Grayscale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma

PhotometricStep = Blur | Brightness | ColorJitter | Contrast | Gamma | Grayscale


def recolor(x: Tensor, step: PhotometricStep, generator: torch.Generator) -> Tensor:
    """One step on (N, 3, H, W) images on the scale 0..1; may change `x` in place."""
    if isinstance(step, ColorJitter):
        return _jitter(x, step, generator)
    if isinstance(step, Grayscale):
        return _some(x, step.probability, (0, 0), lambda chosen, _: grey_of(chosen).expand_as(chosen), generator)
    if isinstance(step, Blur):
        return _some(x, step.probability, (0.1, 2.0), partial(gaussian_blur, kernel_size=step.kernel_size), generator)
    return _some(x, step.probability, (step.min, step.max), _BY_FACTOR[type(step)], generator)


def _some(
    x: Tensor,
    probability: float,
    bounds: tuple[float, float],
    change: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Change each image with `probability`, by a value of its own that is drawn between `bounds`."""
    fires = torch.rand(len(x), generator=generator) < probability
    values = torch.rand(len(x), generator=generator) * (bounds[1] - bounds[0]) + bounds[0]
    if fires.any():
        chosen = fires.nonzero().flatten().to(x.device)
        x[chosen] = change(x[chosen], values[fires].to(x.device))
    return x


def _jitter(x: Tensor, step: ColorJitter, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, drawn for each image."""
    count = len(x)

    def factors(spread: float) -> Tensor:
        return torch.rand(count, generator=generator) * (2 * spread) + (1 - spread)

    # What is off draws nothing.
    fires = torch.rand(count, generator=generator) < step.probability if step.probability < 1 else None
    values = [factors(step.brightness), factors(step.contrast), factors(step.saturation)]
    if step.hue:
        values.append((torch.rand(count, generator=generator) * 2 - 1) * step.hue)
    if fires is None:
        return _adjust(x, [v.to(x.device) for v in values])
    if fires.any():
        chosen = fires.nonzero().flatten().to(x.device)
        x[chosen] = _adjust(x[chosen], [v[fires].to(x.device) for v in values])
    return x


def _adjust(x: Tensor, values: Sequence[Tensor]) -> Tensor:
    """By factors of brightness, contrast and saturation, and a turn of the hue where there is one."""
    brightness, contrast, saturation, *turn = values
    x = adjust_color(x, brightness, contrast, saturation)
    return adjust_hue(x, turn[0]) if turn else x


def adjust_color(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation by (N,) factors in one go; clipped to 0..1 once, at the end."""
    brightness, contrast, saturation = (v.view(-1, 1, 1, 1) for v in (brightness, contrast, saturation))
    x = x * brightness
    grey = grey_of(x)
    middle = grey.mean((2, 3), keepdim=True)
    # (x - middle) * contrast + middle, then blended with its own grey.
    x = torch.lerp((grey - middle) * contrast + middle, (x - middle) * contrast + middle, saturation)
    return x.clamp_(0, 1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """(N, 3, H, W) images on the scale 0..1 times (N,) factors, clipped."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """(N, 3, H, W) images on the scale 0..1, their distance from their mean grey times (N,) factors, clipped."""
    return torch.lerp(grey_of(x).mean((2, 3), keepdim=True), x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_gamma(x: Tensor, gamma: Tensor) -> Tensor:
    """(N, 3, H, W) images on the scale 0..1 to the power of (N,) gammas above 0."""
    return x.clamp(0, 1).pow(gamma.view(-1, 1, 1, 1))  # sampling may leave a -1e-8


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of (N, 3, H, W) images on the scale 0..1 by (N,) shares of the colour circle, -0.5..0.5."""
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    # Hue in sextants of the circle (Smith 1978, the HSV hexcone): 0 is red, 2 green, 4 blue.
    safe = chroma.clamp(min=1e-12)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turn.view(-1, 1, 1)
    channels = []
    for start in (5, 3, 1):
        place = (hue + start).remainder_(6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(channels, 1)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur (N, 3, H, W) images by (N,) sigmas with a kernel of `kernel_size` (odd) pixels; borders are mirrored."""
    n, channels, height, width = x.shape
    half = kernel_size // 2
    offsets = torch.arange(-half, half + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (N * 3, kernel_size)
    planes = F.pad(x, (half, half, half, half), mode="reflect").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernel.view(-1, 1, 1, kernel_size), groups=n * channels)
    planes = F.conv2d(planes, kernel.view(-1, 1, kernel_size, 1), groups=n * channels)
    return planes.view(n, channels, height, width)


def grey_of(x: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W)."""
    return (x * torch.tensor(_GREY, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


_BY_FACTOR: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    Brightness: adjust_brightness,
    Contrast: adjust_contrast,
    Gamma: adjust_gamma,
}
