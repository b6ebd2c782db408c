"""Pictures that look to a network as photographs do, where no photograph is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def natural_images(count: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """(count, H, W, 3) uint8 whose amplitudes fall with frequency, as photographs' do (Field 1987); the last is white.

    The three channels share most of what they show.
    """
    random = np.random.default_rng(seed)
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * max(size)
    noise = np.fft.fft2(random.standard_normal((count, 4, height, width))) / np.maximum(frequency, 1)
    layers = np.fft.ifft2(noise).real
    pictures = layers[:, :1] + 0.3 * layers[:, 1:]
    low, high = pictures.min((1, 2, 3), keepdims=True), pictures.max((1, 2, 3), keepdims=True)
    images = ((pictures - low) / (high - low) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    images[-1] = 255
    return np.ascontiguousarray(images)
