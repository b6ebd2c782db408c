"""Whether other work took the cores while something was measured.

On Linux the kernel says how long the process's threads stood in the run queue, ready but without a core
(/proc/self/task/*/schedstat), and how busy the cores were altogether (/proc/stat, which counts what a hypervisor took
too). Elsewhere only the number of involuntary switches is known.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

QUEUED_SHARE = 0.05
"""Of a turn's time: more in the run queue, through the fault of others, disturbs it."""
OTHERS_SHARE = 0.1
"""Of the time of the cores that matter, the row's own and one more: more work of others disturbs a turn, even beside
it: caches, memory and clock are shared. A share of all cores would let a machine of 64 hide six busy ones."""
SWITCHES_PER_SECOND = 200
"""Only where nothing better is known: an idle machine has a few, a shared core one for each slice of its scheduler."""
_STAT_ERROR = 0.03
"""Seconds by which a difference of two readings of /proc/stat may be off: it counts in hundredths."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Clocks at one moment, seconds; None where the system does not tell."""

    wall: float
    own: float
    """CPU time of this process."""
    queued: float | None
    """Time that its threads waited for a core."""
    busy: float | None
    """CPU time of everybody, on the cores that this process may use."""
    switches: int
    """Times that one of its threads was sent off its core."""


def usage() -> Usage:
    """Read the clocks."""
    return Usage(
        time.perf_counter(),
        time.process_time(),
        _queued(Path("/proc/self/task")),
        _busy(Path("/proc/stat"), _cores()),
        resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
    )


def disturbance(before: Usage, after: Usage, threads: int, cores: int | None = None) -> str | None:
    """What others took between two readings, in words; None where it was little.

    Args:
        before, after: the readings.
        threads: of the row that was measured.
        cores: that this process may use; None: as the system says.
    """
    wall = max(after.wall - before.wall, 1e-9)
    matter = min(cores or len(_cores()), threads + 1)
    others = None
    if before.busy is not None and after.busy is not None:
        others = max(0.0, after.busy - before.busy - (after.own - before.own))
        share = (others - _STAT_ERROR) / (wall * matter)
        if share > OTHERS_SHARE:
            return f"other work had {share:.0%} of {matter} core{'s' * (matter > 1)}"
    if before.queued is not None and after.queued is not None:
        queued = max(0.0, after.queued - before.queued)
        if others is not None:  # threads of one process that stand in each other's way are its own affair
            queued = min(queued, others + _STAT_ERROR)
        if queued > QUEUED_SHARE * wall:
            return f"its threads waited {queued / wall:.0%} of the time for a core"
    elif others is None and (rate := (after.switches - before.switches) / wall) > SWITCHES_PER_SECOND:
        return f"its threads were sent off their cores {rate:.0f} times a second"
    return None


def rest(patience: float = 0.3) -> None:
    """Return when this process uses no core any more: threads that still spin would slow whoever comes next."""
    ends = time.perf_counter() + patience
    while time.perf_counter() < ends:
        own = time.process_time()
        time.sleep(0.002)
        if time.process_time() - own < 0.0005:
            return


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _queued(tasks: Path) -> float | None:
    """Of the threads that live; those that ended meanwhile are forgotten."""
    try:
        files = [task / "schedstat" for task in tasks.iterdir()]
        return sum(int(file.read_text().split()[1]) for file in files if file.exists()) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _busy(stat: Path, cores: set[int]) -> float | None:
    """user, nice, system, irq, softirq and steal; not idle and iowait. Guests are in user already."""
    try:
        lines = [line.split() for line in stat.read_text().splitlines()]
        wanted = {f"cpu{core}" for core in cores}
        ticks = sum(int(line[i]) for line in lines if line and line[0] in wanted for i in (1, 2, 3, 6, 7, 8))
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
