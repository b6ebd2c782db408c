"""Where the time of training goes: data, augmentation, forward, loss, backward, optimiser, average, validation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections import Counter as CounterType

from collections import Counter

_EVERY = 16
"""On a device that works behind the caller's back one step in so many is measured, by its own clock."""


class Profile:
    """A clock that is told what the time since the last mark was spent on; cheap enough to run always.

    On a CPU every step counts. On CUDA events are recorded in every 16th step and read when the epoch ends, so that
    nothing waits for them; their shares stand for all steps, "data" being the time that the device waited.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.steps = 0
        self.step_seconds: CounterType[str] = Counter()
        """Of the steps that were measured."""
        self.other_seconds: CounterType[str] = Counter()
        """Validation and checkpoints."""
        self._measured = 0
        self._last = 0.0
        self._event: Any = None
        self._events: list[tuple[str, Any, Any]] = []

    def begin_step(self) -> None:
        """The clock starts; what came since the last step belongs to none of the kinds."""
        self.steps += 1
        if self.cuda:
            self._event = self._now() if self.steps % _EVERY == 0 else None
            self._measured += self._event is not None
        else:
            self._measured += 1
            self._last = time.perf_counter()

    def mark(self, what: str) -> None:
        """The time since the last mark of this step went into `what`."""
        if not self.cuda:
            now = time.perf_counter()
            self.step_seconds[what] += now - self._last  # type: ignore[assignment]
            self._last = now
        elif self._event is not None:
            event = self._now()
            self._events.append((what, self._event, event))
            self._event = event

    def add(self, what: str, seconds: float) -> None:
        """Time outside steps."""
        self.other_seconds[what] += seconds  # type: ignore[assignment]

    def read(self) -> None:
        """Take in what the device has measured; the caller has waited for it."""
        for what, before, after in self._events:
            after.synchronize()
            self.step_seconds[what] += before.elapsed_time(after) / 1e3
        self._events.clear()

    def _now(self) -> Any:
        event: Any = torch.cuda.Event
        made = event(enable_timing=True)
        made.record()
        return made

    def to_dict(self) -> dict[str, Any]:
        """Seconds of each kind and its share, JSON-ready; steps that were not measured count as the mean."""
        scale = self.steps / self._measured if self._measured else 0.0
        seconds = {what: value * scale for what, value in self.step_seconds.items()} | dict(self.other_seconds)
        total = sum(seconds.values())
        return {
            "steps": self.steps,
            "measured_steps": self._measured,
            "seconds": {what: round(value, 3) for what, value in seconds.items()},
            "share": {what: round(value / total, 4) if total else 0.0 for what, value in seconds.items()},
        }

    def line(self) -> str:
        """One line for the log, the largest share first."""
        share: dict[str, float] = self.to_dict()["share"]
        return ", ".join(f"{what} {part:.0%}" for what, part in sorted(share.items(), key=lambda kv: -kv[1]))
