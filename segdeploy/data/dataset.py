"""Samples as arrays at the network's size, decoded once and kept where there is room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.config.preprocessing import Cache
from segdeploy.data.cache import open_cache
from segdeploy.data.images import read_image
from segdeploy.data.masks import read_mask
from segdeploy.data.resize import resize_image, resize_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec

    Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Dataset:
    """`dataset[i]` is (image (height, width, 3), mask (height, width)), both uint8, resized; 255 = ignore.

    Args:
        samples: each with a mask.
        spec: the network's size and the classes.
        cache: where decoded samples are kept.
        sharers: how many processes on this machine keep a cache of their own.
    """

    def __init__(
        self, samples: Sequence[Sample], spec: ModelSpec, cache: Cache | None = None, sharers: int = 1
    ) -> None:
        self.samples = samples
        self.spec = spec
        size = (spec.preprocessing.height, spec.preprocessing.width)
        self._cache = open_cache(len(samples), size, cache or Cache(), sharers)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Pair:
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        sample = self.samples[index]
        if sample.mask is None:
            raise ValueError(f"{sample.image} has no mask")
        image = resize_image(read_image(sample.image), self.spec.preprocessing)
        mask = resize_mask(read_mask(sample.mask, self.spec.classes), self.spec.preprocessing)
        self._cache.put(index, image, mask)
        return image, mask

    def describe_cache(self) -> str:
        """One line on where decoded samples are kept."""
        return self._cache.describe(len(self))

    def batches(self, order: Sequence[int], size: int) -> Iterator[Pair]:
        """(N, height, width, 3) and (N, height, width) for consecutive runs of `order`; the last may be shorter.

        The next batch is read by one thread while the caller works on the present one.
        """
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(self.stack, chunk) for chunk in chunks[:1]]
            for following in [*chunks[1:], None][: len(chunks)]:
                ready = coming.pop().result()
                coming += [] if following is None else [pool.submit(self.stack, following)]
                yield ready

    def stack(self, indices: Sequence[int]) -> Pair:
        """(N, height, width, 3) and (N, height, width) of the samples at `indices`."""
        pairs = [self[i] for i in indices]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
