"""Progress: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[int, int], None]


_quiet = ContextVar("quiet", default=False)
_PATIENCE = 0.5
"""Seconds between two notes beside a bar."""
_EVERY = 10.0
"""Seconds between two lines in a log."""


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Inside, `progress` shows nothing, if `wanted`: for callers from Python who asked for few words."""
    token = _quiet.set(wanted)
    try:
        yield
    finally:
        _quiet.reset(token)


def say(text: str = "") -> None:
    """Print a line to standard output at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "3 min 5 s", "2 h 7 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def progress(what: str, note: Callable[[], str] = lambda: "") -> Iterator[Step]:
    """Yield a function of (done, total); it draws a bar, or writes a line every `_EVERY` seconds and at the end."""
    if _quiet.get():
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(what, note, _PATIENCE) as step:
            yield step
    else:
        yield _lines(what, note)


@contextmanager
def _bar(what: str, note: Callable[[], str], patience: float = 0) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    last, said = -patience, ""
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, note="")

        def step(done: int, total: int) -> None:
            nonlocal last, said
            now = time.monotonic()
            if now - last >= patience or done == total:  # a note may cost more than a step
                last, said = now, note()
            bar.update(task, completed=done, total=total, note=said)

        yield step


def _lines(what: str, note: Callable[[], str]) -> Step:
    started = last = time.monotonic()
    finished = False

    def step(done: int, total: int) -> None:
        nonlocal last, finished
        now = time.monotonic()
        ends = done == total and not finished and now - started >= _EVERY
        if now - last >= _EVERY or ends:
            last, finished = now, finished or ends
            sys.stderr.write(f"{what}: {done}/{total}  {now - started:.0f} s  {note()}".rstrip() + "\n")
            sys.stderr.flush()

    return step


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Like `progress`, for work whose description changes: yield a function of (what, done, total)."""
    if sys.stderr.isatty():
        what_now = ""
        with _bar("", lambda: what_now) as step:

            def show(what: str, done: int, total: int) -> None:
                nonlocal what_now
                what_now = what
                step(done, total)

            yield show
        return
    stage = ""
    step = _lines(stage, lambda: "")

    def line(what: str, done: int, total: int) -> None:
        nonlocal stage, step
        if what != stage:
            stage, step = what, _lines(what, lambda: "")
            sys.stderr.write(f"{what} ...\n")
            sys.stderr.flush()
        step(done, total)

    yield line
