"""The near end of a worker: start it, ask it, and know when it died."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self


_POLL = 0.5
"""Seconds between looks at a silent worker: its end shows on the pipe only when no child of its own holds it open."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class RowError(Exception):
    """A row cannot go on; the message is its reason."""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class WorkerProcess:
    """A `segdeploy.benchmark.worker` with pinned thread counts.

    Args:
        threads: for OpenMP, MKL and OpenBLAS alike; the runner sets its engine's own count besides.
        timeout: seconds that any answer may take.
        extra: further variables of its environment.
    """

    def __init__(self, threads: int, timeout: float = 900.0, extra: Mapping[str, str] | None = None) -> None:
        env = {**os.environ, **dict.fromkeys(_THREADS, str(threads)), **(extra or {})}
        self.timeout = timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            # -P: nothing is imported from the folder that the user happens to be in.
            [sys.executable, "-P", "-m", "segdeploy.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            start_new_session=True,  # its children, such as a compiler, end with it
        )
        self._pending = b""

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a line, wait for its answer; RowError when the worker fails, dies or takes too long."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RowError(self._died()) from None
        answer: dict[str, Any] = json.loads(self._read_line(do, timeout or self.timeout))
        if "error" in answer:
            raise RowError(answer["error"])
        return answer

    def _read_line(self, do: str, timeout: float) -> bytes:
        assert self._process.stdout is not None
        ends = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, min(_POLL, ends - time.monotonic()))):
                    if self._process.poll() is not None:
                        raise RowError(self._died())
                    if time.monotonic() >= ends:
                        self._kill()
                        raise RowError(f"no answer to {do!r} within {timeout:.0f} s; stopped")
                    continue
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise RowError(self._died())
                self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _kill(self) -> None:
        """End the process, and what it has started."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()

    def _died(self) -> str:
        code = self._process.wait()
        self._kill()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        return f"the row's process {how}: {said[-1][:300]}" if said else f"the row's process {how}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            # Ctrl-C does not reach a session of its own.
            self._process.wait(timeout=0 if kind is not None and not issubclass(kind, Exception) else 10)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
