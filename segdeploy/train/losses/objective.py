"""What every loss is: a mean whose parts can be added up over batches, halves of batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segdeploy.classes import IGNORE


class Objective(nn.Module):
    """From logits (N, C, H, W) float32 and class ids (N, H, W) int64, 255 = ignore, to a scalar.

    A loss has K terms, one but for a list of losses, and each is a sum over what the labels make count. Whoever adds
    up `parts` over many batches, and takes `mean` at the end, has the loss of one large batch. What a sum is divided
    by depends on the labels alone, so that it is known before the network has run. Without a label everything is 0,
    gradients too. Nothing here waits for the device.

    Args:
        class_weights: (C,) float32, or None for equal ones; pixels of a class of weight 0 are ignored.
    """

    class_weights: Tensor | None
    pixel_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        table = None
        if class_weights is not None:
            table = torch.zeros(IGNORE + 1)
            table[: len(class_weights)] = class_weights
        self.register_buffer("pixel_weights", table, persistent=False)
        self.mutes = class_weights is not None and bool((class_weights == 0).any())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of one batch, a scalar."""
        return self.mean(*self.parts(logits, target))

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (K,), which gradients flow through, and what they are divided by (K,), as `weights` gives it."""
        raise NotImplementedError

    def weights(self, target: Tensor) -> Tensor:
        """(K,) float32: how much the labels count; 0 where there is nothing to learn."""
        raise NotImplementedError

    def mean(self, sums: Tensor, weights: Tensor) -> Tensor:
        """The scalar that parts (K,), (K,), also added up over batches, stand for."""
        return self.terms(sums, weights).sum()

    def terms(self, sums: Tensor, weights: Tensor) -> Tensor:
        """(K,) quotients; 0 where nothing counts."""
        return sums / torch.where(weights > 0, weights, 1)

    def labels(self, target: Tensor) -> Tensor:
        """`target` without the classes of weight 0: they become 255."""
        if not self.mutes or self.pixel_weights is None:
            return target
        return target.masked_fill(self.pixel_weights[target] == 0, IGNORE)


class PixelObjective(Objective):
    """A mean over the pixels that have a label, each as heavy as its class."""

    def weights(self, target: Tensor) -> Tensor:
        """(1,): the weight of all labelled pixels together."""
        if self.pixel_weights is None:
            return (target != IGNORE).sum().float()[None]
        return self.pixel_weights[target].sum()[None]


class ImageObjective(Objective):
    """A mean over the images that have a label somewhere."""

    def images(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N,): the loss of each image, 0 where it has no label."""
        raise NotImplementedError

    def parts(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        labels = self.labels(target)
        return self.images(logits, labels).sum()[None], self.weights(labels)

    def weights(self, target: Tensor) -> Tensor:
        """(1,): how many images have a label."""
        return self.counts(self.labels(target)).flatten(1).any(1).sum().float()[None]

    def counts(self, labels: Tensor) -> Tensor:
        """(N, H, W) bool: the pixels that make an image count."""
        return labels != IGNORE

    def over_classes(self, values: Tensor, present: Tensor) -> Tensor:
        """(N,) mean of values (N, C) over the classes that are present (N, C) bool, each as heavy as its weight."""
        weights = present.float() if self.class_weights is None else present * self.class_weights
        total = weights.sum(1)
        return (values * weights).sum(1) / torch.where(total > 0, total, 1)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(N, H, W) -> (N, C, H, W) bool; ignored pixels are of no class."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1)
