"""Whole commands side by side: each in a new process, taking turns, with the work of others watched."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.benchmark.contention import OTHERS_SHARE, usage
from segdeploy.benchmark.timing import paired_ratio
from segdeploy.environment import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Command = Sequence[str]


def timed(command: Command) -> tuple[float, bool]:
    """Seconds from the start of the process to its end, and whether others' work had a tenth of the cores or more.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    before, children = usage(), _children()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    after = usage()
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)
    wall = after.wall - before.wall
    if before.busy is None or after.busy is None:
        return wall, False
    own = after.own - before.own + _children() - children
    # /proc/stat counts in hundredths of a second.
    others = after.busy - before.busy - own - 0.03
    return wall, others > OTHERS_SHARE * wall * available_cores()


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def take_turns(
    sides: Mapping[str, Command], rounds: int, prepare: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """Each side's seconds in each of `rounds` rounds; one round before them fills the page cache and is not counted.

    A round that others disturbed is measured again, at most as often as there are rounds; then they count, and
    `disturbed` says how many. Every other round runs backwards. `prepare(name)` is called before a side's turn, outside
    its time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    repeated = disturbed = kept = 0
    for name in sides:
        prepare(name)
        timed(sides[name])
    while kept < rounds:
        found = {}
        for name in list(sides)[:: 1 if kept % 2 == 0 else -1]:
            prepare(name)
            found[name] = timed(sides[name])
        busy = any(late for _, late in found.values())
        if busy and repeated < rounds:
            repeated += 1
            continue
        for name, (taken, _) in found.items():
            seconds[name].append(taken)
        kept += 1
        disturbed += busy
    return {"seconds": seconds, "repeated_rounds": repeated, "disturbed_rounds": disturbed}


def compare(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Any]:
    """Best and median of each side, and how many times as long as `baseline` takes: median of the rounds, interval."""
    found = {}
    for name, values in seconds.items():
        # paired_ratio(a, b) is a / b, and wants the calls of each round.
        low_high = paired_ratio([[v] for v in values], [[v] for v in seconds[baseline]])
        found[name] = {
            "best_seconds": min(values),
            "median_seconds": float(np.median(values)),
            f"times_{baseline}": dict(zip(("median", "low", "high"), low_high, strict=True)),
        }
    return found


def clean_environment() -> None:
    """Take out of the environment what changes how long a process takes, and let no side write bytecode of its own."""
    for name in ("PYTHONPROFILEIMPORTTIME", "PYTHONDONTWRITEBYTECODE", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)
