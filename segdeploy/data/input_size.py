"""The network's input size where the configuration leaves it to the images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter

    from segdeploy.config.schema import RunConfig

log = logging.getLogger(__name__)

MULTIPLE = 32
"""Sizes are multiples of the coarsest usual stride, so that every level divides evenly."""


def settle_input_size(config: RunConfig, sizes: Counter[tuple[int, int]]) -> RunConfig:
    """`config` with a height and a width.

    Where it has none, each side is the mean over the training images, at most `infer_image_max_height` and
    `infer_image_max_width` (Ludwig's rule), and then the nearest multiple of 32 that keeps the limit.

    Args:
        config: any configuration.
        sizes: how many training images have which (height, width).
    """
    wanted = config.image.preprocessing
    if wanted.height is not None and wanted.width is not None:
        return config
    count = sum(sizes.values())
    means = [sum(size[side] * n for size, n in sizes.items()) / count for side in (0, 1)]
    limits = (wanted.infer_image_max_height, wanted.infer_image_max_width)
    height, width = (_fit(mean, limit) for mean, limit in zip(means, limits, strict=True))
    log.info(
        "the images are resized to %dx%d (their mean is %.0fx%.0f, the limits are infer_image_max_width %d and "
        "infer_image_max_height %d); set preprocessing.height and width to choose",
        width, height, means[1], means[0], limits[1], limits[0],
    )  # fmt: skip
    preprocessing = wanted.model_copy(update={"height": height, "width": width})
    image = config.image.model_copy(update={"preprocessing": preprocessing})
    return config.model_copy(update={"input_features": (image,)})


def _fit(mean: float, limit: int) -> int:
    return max(MULTIPLE, min(round(mean / MULTIPLE), limit // MULTIPLE) * MULTIPLE)
