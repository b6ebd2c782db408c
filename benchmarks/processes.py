"""Commands as sides of a comparison: each runs in a process of its own, they take turns, each round gives ratios."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process took: seconds of the wall clock, and of the CPU in all its threads."""

    wall: float
    cpu: float


def environment_of(*, ours: bool) -> dict[str, str]:
    """What a side has around it when it runs alone: segdeploy's commands let threads sleep while they wait."""
    own = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    return own | ({"OMP_WAIT_POLICY": "PASSIVE"} if ours else {})


def run(words: Sequence[str | Path], threads: int, pycache: Path) -> Spent:
    """Run a command to its end; what it prints is shown only where it fails.

    Modules are kept compiled in `pycache`, as pip leaves them, whatever the caller's environment says.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(pycache), "OMP_NUM_THREADS": str(threads)}
    with (pycache / "output.txt").open("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen([str(w) for w in words], env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(map(str, words))} ended with {process.returncode}:\n{output.read()}")
    return Spent(wall, used.ru_utime + used.ru_stime)


def in_turns(sides: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, list[Spent]]:
    """Each side once per round, in an order that rotates, after one round that does not count."""
    names = list(sides)
    found: dict[str, list[Spent]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        for name in (names[(turn + i) % len(names)] for i in range(len(names))):
            spent = sides[name]()
            if turn >= 0:
                found[name].append(spent)
    return found


def summary(values: Mapping[str, Sequence[float]], first: str) -> dict[str, dict[str, float]]:
    """Of each side's seconds: median, least, and how many times those of `first` they are, round by round."""
    base = np.array(values[first])
    rows = {}
    for name, taken in values.items():
        ratios = np.array(taken) / base
        rows[name] = {
            "median": float(np.median(taken)),
            "least": min(taken),
            f"times_{first}": float(np.median(ratios)),
            f"times_{first}_least": float(ratios.min()),
            f"times_{first}_most": float(ratios.max()),
            f"least_times_{first}_least": min(taken) / min(values[first]),
        }
    return {name: {key: round(value, 3) for key, value in row.items()} for name, row in rows.items()}


def samples(found: Mapping[str, Sequence[Spent]]) -> dict[str, list[list[float]]]:
    """Every measurement as it was, [wall, cpu]."""
    return {name: [[round(s.wall, 4), round(s.cpu, 4)] for s in spent] for name, spent in found.items()}
