"""Commands as sides of a comparison: each runs in a process of its own, they take turns, each round gives ratios."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.benchmark.contention import Usage, disturbance, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SECONDS = "SECONDS"
"""What a `Side` prints before the seconds of a block."""
DISTURBED_ROUNDS = 5
"""Times the rounds wanted: so many may be lost to other work before `take_turns` gives up."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process took: seconds of the wall clock, and of the CPU in all its threads."""

    wall: float
    cpu: float


def environment_of(*, ours: bool) -> dict[str, str]:
    """What a side has around it when it runs alone: segdeploy's commands let threads sleep while they wait."""
    own = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    return own | ({"OMP_WAIT_POLICY": "PASSIVE"} if ours else {})


class Side:
    """A side that stays in a process of its own, between its blocks too, with what it has warmed up.

    For each line on its standard input the program runs a block and prints `SECONDS` and how many it took; between
    blocks it uses no core for long. `said` has its other lines.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], threads: int) -> None:
        self.words, self.threads = words, threads
        self.said: list[str] = []
        self.process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def block(self) -> tuple[float, str | None]:
        """Seconds of its next block, and what other work, or the host of a virtual machine, took meanwhile."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        before = self._usage()
        with suppress(BrokenPipeError):  # it ended; below that is said
            self.process.stdin.write("\n")
        for line in self.process.stdout:
            if line.startswith(SECONDS):
                return float(line.split()[1]), disturbance(before, self._usage(), self.threads)
            self.said.append(line)
        raise SystemExit(f"{' '.join(self.words)[:300]}: ended with {self.process.wait()}")

    def _usage(self) -> Usage:
        """The clocks, with the time of the side's process and of those it started as what is not other work."""
        return replace(usage(), own=_ticks(self.process.pid) / os.sysconf("SC_CLK_TCK"), queued=None)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def _ticks(pid: int | str) -> int:
    """Processor time of a process and its children, user's and system's; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = [
            child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
        ]
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) + sum(map(_ticks, children))  # own, and of children that ended


@dataclass
class Turns:
    """What `take_turns` found."""

    seconds: dict[str, list[float]]
    """Of each block that counts, by side."""
    disturbed: list[str] = field(default_factory=list)
    """Why rounds do not count."""


def take_turns(sides: Mapping[str, Side], rounds: int) -> Turns:
    """One block of each side per round, there and back; after one round that warms up, and ends all at the end.

    Raises:
        SystemExit: a side ended, or other work disturbed most rounds.
    """
    found = Turns({name: [] for name in sides})
    try:
        for side in sides.values():
            side.block()
        order = list(sides)
        while len(found.seconds[order[0]]) < rounds:
            blocks = {name: sides[name].block() for name in order}
            order.reverse()
            if reasons := [f"{name}: {why}" for name, (_, why) in blocks.items() if why]:
                found.disturbed.append("; ".join(reasons))
                if len(found.disturbed) > DISTURBED_ROUNDS * rounds:
                    raise SystemExit(f"the machine is not idle; the last round: {found.disturbed[-1]}")
                continue
            for name, (seconds, _) in blocks.items():
                found.seconds[name].append(seconds)
    finally:
        for side in sides.values():
            side.close()
    return found


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
