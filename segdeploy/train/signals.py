"""SIGTERM and SIGINT as a request: training finishes its step, saves its state and ends."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from segdeploy.errors import SegdeployError

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType, TracebackType
    from typing import Self

_ASKING = (signal.SIGTERM, signal.SIGINT)


class StoppedError(SegdeployError):
    """Training ended because a signal asked for it; its state is saved. The exit code is a shell's, 128 + signal."""

    def __init__(self, run: Path, number: int, where: str) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} {where}; go on with: segdeploy train --resume {run}"
        )
        self.exit_code = 128 + number


class StopRequest:
    """A context manager inside which the signals are only noted; a second one acts as it always does.

    Outside the main thread, where Python allows no handlers, signals act as they did.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that came."""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _ASKING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
