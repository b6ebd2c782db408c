"""What every timm model with `features_only` can do inside segdeploy: train, export, run at free sizes.

    pip install segdeploy
    nice python benchmarks/probe_timm.py -o probe.jsonl --table timm_features.md

First every name that timm lists is built without memory (torch's meta device): levels, number of parameters, image
sizes that work. Then models are probed for real, each in a process of its own: one training step, an ONNX file with
free height and width, onnxruntime against torch at sizes that were not the example's. The smallest model of every
timm file comes first, then that of every kind, then the others up to --max-params. A kind is a timm file, a set of
layer classes and a form of sizes; models that are not probed stand in the table as their kind's smallest, marked so.
A second start goes on where the first one ended. A model that takes more than SLOW seconds of processor time, which
is torch simplifying expressions of height and width, is probed once more at one size; larger ones of its kind, and all
with more than SMALL parameters, are probed at one size at once.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import gc
import json
import logging
import math
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from probe_timm_steps import Graph, Row, describe, measure, measure_fixed
from probe_timm_table import write_table

from segdeploy.encoders.timm import TimmEncoder
from segdeploy.environment import describe_machine

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

STEPS = {"describe": describe, "measure": measure, "measure_fixed": measure_fixed}
SMALL = 400e6  # parameters; a kind's smallest model is probed without --max-params up to here
QUICK = 60  # seconds
SLOW = 100  # seconds of processor time for one model
TIME_LIMIT = 1800  # seconds for one model on the clock


@dataclass
class Child:
    """One step on one model in a process of its own, that may hang or die."""

    step: str
    name: str
    why_fixed: str = ""
    """Why `measure_fixed` is the first that is tried."""
    process: BaseProcess = field(init=False)
    receiver: Connection = field(init=False)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("fork")  # torch and the exporter are loaded once, in the parent
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_child, args=(sender, self.step, self.name))
        self.process.start()
        sender.close()

    def late(self) -> bool:
        """Whether it hangs."""
        return time.perf_counter() - self.started > TIME_LIMIT

    def end(self) -> Row | None:
        """The row; None where `measure` was too slow and `measure_fixed` is the thing to do."""
        failed = {} if self.step == "describe" else {"trains": "?", "exports": "?", "dynamic": "?"}
        try:
            row = self.receiver.recv() if self.receiver.poll() else failed | {"error": f"not done in {TIME_LIMIT} s"}
        except EOFError:
            row = None
        self.process.kill()
        self.process.join()
        if row is None:
            if self.step == "measure" and self.process.exitcode == -signal.SIGXCPU:
                return None
            row = failed | {"error": f"the process ended with exit code {self.process.exitcode}"}
        if self.step == "measure_fixed":
            row.setdefault("dynamic_note", self.why_fixed or f"not done in {SLOW} s of processor time")
        step = self.step.removesuffix("_fixed")
        return {"step": step, "name": self.name, **row, "seconds": round(time.perf_counter() - self.started, 1)}


def _child(sender: Connection, step: str, name: str) -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    gc.disable()  # tracing keeps most of what it makes
    if step == "measure":
        resource.setrlimit(resource.RLIMIT_CPU, (SLOW, SLOW + 10))  # SIGXCPU first, SIGKILL if it lives on
    sender.send(STEPS[step](name))


def read(path: Path) -> dict[str, dict[str, Row]]:
    """Rows by step and name."""
    rows: dict[str, dict[str, Row]] = {"run": {}, "describe": {}, "measure": {}}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["step"]][row["name"]] = row
    return rows


def order(described: dict[str, Row], measured: dict[str, Row], max_params: float) -> list[str]:
    """Names to measure: the smallest of each timm file, that of each kind, then the others up to `max_params`.

    Of the others, those of quick kinds come first.
    """
    models = sorted((r for r in described.values() if "params" in r), key=lambda r: r["params"])
    names = []
    for key in ("module", "kind"):
        first = {r[key]: r for r in reversed(models)}
        names += [r["name"] for r in sorted(first.values(), key=lambda r: r["params"]) if r["params"] <= SMALL]
    took: dict[str, float] = {}
    for name in measured.keys() & described.keys():
        kind = described[name].get("kind", "")
        took[kind] = min(took.get(kind, math.inf), measured[name]["seconds"])
    others = sorted((r for r in models if r["params"] <= max_params), key=lambda r: took.get(r["kind"], 0) > QUICK)
    return list(dict.fromkeys(names + [r["name"] for r in others]))


def run(step: str, names: list[str], path: Path, jobs: int) -> None:
    """Append one row per name to `path`; names that are there already are skipped."""
    rows = read(path)
    described, done = rows["describe"], rows[step]
    left = [n for n in names if n not in done]
    slow = {_kind(described, n): n for n in done if done[n].get("dynamic") == "?"} if step == "measure" else {}
    waiting = [(step, n) for n in left]
    started, count = time.perf_counter(), 0
    running: list[Child] = []
    with path.open("a", encoding="utf-8") as file:
        while waiting or running:
            while waiting and len(running) < jobs:
                now, name = waiting.pop(0)
                why = _why_fixed(described.get(name, {}), slow) if now == "measure" else ""
                running.append(Child("measure_fixed" if why else now, name, why))
            ready = wait([c.receiver for c in running], timeout=10)
            for child in [c for c in running if c.receiver in ready or c.late()]:
                running.remove(child)
                row = child.end()
                if row is None:
                    waiting.insert(0, ("measure_fixed", child.name))
                    slow[_kind(described, child.name)] = child.name
                    continue
                file.write(json.dumps(row) + "\n")
                file.flush()
                count += 1
                pace = (time.perf_counter() - started) / count
                result = " | ".join(str(row.get(k, "-")) for k in ("sizes", "trains", "exports", "dynamic", "error"))
                print(f"{step} {count}/{len(left)} {child.name}: {result}; {row['seconds']} s, "
                      f"{pace * (len(left) - count) / 60:.0f} min left at this pace", flush=True)  # fmt: skip


def _why_fixed(about: Row, slow: dict[str, str]) -> str:
    if about.get("params", 0) > SMALL:
        return f"not tried above {SMALL / 1e6:.0f} M parameters"
    other = slow.get(about.get("kind", ""))
    return f"not tried, as {other} was not done in {SLOW} s of processor time" if other else ""


def _kind(described: dict[str, Row], name: str) -> str:
    return str(described.get(name, {}).get("kind", name))


def note_start(path: Path) -> None:
    """Say in `path` when, where and by which command the rows below it came to be."""
    command = " ".join(["python", *sys.argv])
    row = {"step": "run", "name": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | {"command": command, "machine": describe_machine()}) + "\n")


def main() -> None:
    """Probe, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("probe_timm.jsonl"), help="one JSON row per step")
    parser.add_argument("--only", default="*", help="names to look at, such as 'resnet*'")
    parser.add_argument("--max-params", type=float, default=0, help="probe all models up to this size too")
    parser.add_argument("--jobs", type=int, default=1, help="models probed at a time, on one core each")
    parser.add_argument("--table", type=Path, help="write this Markdown file, and a CSV file beside it")
    parser.add_argument("--table-only", action="store_true", help="from what the output holds already")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = fnmatch.filter(timm.list_models(), arguments.only)
    if not arguments.table_only:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            Graph(TimmEncoder("test_resnet").eval(), (64, 96), {0: "batch"})  # loads the exporter before the forks
            note_start(arguments.output)
            run("describe", names, arguments.output, arguments.jobs)
            rows = read(arguments.output)
            described = {n: r for n, r in rows["describe"].items() if n in set(names)}
            wanted = order(described, rows["measure"], arguments.max_params)
            run("measure", wanted, arguments.output, arguments.jobs)
    if arguments.table:
        rows = read(arguments.output)
        write_table(arguments.table, rows["run"], rows["describe"], rows["measure"])


if __name__ == "__main__":
    main()
