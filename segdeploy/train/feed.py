"""Batches on the device: read ahead by threads, augmented there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segdeploy.threads import in_order
from segdeploy.train.step import Batch

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

    from segdeploy.data.augment import Augment
    from segdeploy.data.dataset import Dataset
    from segdeploy.train.profile import Profile


class Feed:
    """Makes `step.Batch`es of lists of samples.

    Args:
        data: the training part.
        augment: changes a batch on the device.
        device: where batches go.
        profile: learns how long was waited for data, and how long augmenting took.
    """

    def __init__(self, data: Dataset, augment: Augment, device: torch.device, profile: Profile) -> None:
        self.data, self.augment, self.device, self.profile = data, augment, device, profile
        # A CPU that trains has no core to spare; a GPU waits for what one thread decodes.
        self.readers = 1 if device.type == "cpu" else None

    def __call__(
        self, steps: Sequence[Sequence[Sequence[int]]], streams: Sequence[torch.Generator]
    ) -> Generator[Batch, None, None]:
        """The batches of `steps`, one after the other; the i-th of each step is augmented from the i-th stream."""
        chunks = [chunk for step in steps for chunk in step]
        loaded = in_order(self._load, chunks, self.readers)
        try:
            for number, (chunk, (images, masks)) in enumerate(zip(chunks, loaded, strict=True)):
                self.profile.mark("data")
                x, y = self.augment(
                    images.to(self.device, non_blocking=True),
                    masks.to(self.device, non_blocking=True),
                    streams[number % len(streams)],
                )
                x = x.contiguous(memory_format=torch.channels_last)
                self.profile.mark("augment")
                yield Batch(tuple(chunk), x, y)
        finally:
            loaded.close()

    def _load(self, chunk: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, masks = map(torch.from_numpy, self.data.stack(chunk))
        # From pinned memory a copy to the device need not wait for what is queued there.
        return (images.pin_memory(), masks.pin_memory()) if self.device.type == "cuda" else (images, masks)
