"""How fast a training goes, and how long it has still to go: the words beside its progress bar."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from segdeploy.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable


class Pace:
    """Knows the time of the epochs so far.

    Args:
        epochs: in all.
        steps: of an epoch.
        images: per step.
        clock: seconds, from any point in time.
    """

    def __init__(self, epochs: int, steps: int, images: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.epochs, self.steps, self.images, self._clock = epochs, steps, images, clock
        self._epoch, self._began = 0, 0.0
        self._whole: float | None = None

    def begin(self, epoch: int) -> None:
        """An epoch, from 1, begins; the one before has ended, its validation included."""
        now = self._clock()
        self._whole = now - self._began if self._epoch else None
        self._epoch, self._began = epoch, now

    def note(self, done: int, loss: float, rate: float, best: float) -> str:
        """Loss, learning rate, images/s of this epoch, the best score so far and the time left, in words.

        Args:
            done: steps of this epoch.
            loss: mean of this epoch so far.
            rate: of the last step.
            best: highest validation mean IoU so far; negative: none yet.
        """
        passed = self._clock() - self._began
        if not done or passed <= 0:
            return ""
        # In the first epoch nothing is known of the validation to come.
        whole = self._whole or passed / done * self.steps
        left = max(0.0, whole - passed) + (self.epochs - self._epoch) * whole
        score = f"  best mIoU {best:.4f}" if best >= 0 else ""
        speed = done * self.images / passed
        return f"loss {loss:.4f}  lr {rate:.1e}{score}  {speed:.1f} images/s  {duration(left)} left"
