"""What every timm model with `features_only` can do inside segdeploy: train, export, run at free sizes.

    pip install segdeploy
    nice python benchmarks/probe_timm.py -o probe.jsonl --table timm_features.md

First every name that timm lists is built without memory (torch's meta device): levels, number of parameters, image
sizes that work. Then models are probed for real, each in a process of its own: one training step, an ONNX file with
free height and width, onnxruntime against torch at sizes that were not the example's. The smallest model of every
timm file comes first, then that of every kind, then the others up to --max-params. A kind is a timm file, a set of
layer classes and a form of sizes; models that are not probed stand in the table as their kind's smallest, marked so.
A second start goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import logging
import multiprocessing
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from probe_timm_steps import Graph, Row, describe, measure
from probe_timm_table import write_table

from segdeploy.encoders.timm import TimmEncoder
from segdeploy.environment import describe_machine

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LARGEST = 400e6  # parameters; the ONNX file must stay below 2 GB
TIME_LIMIT = 900  # seconds for one model


def _child(sender: Connection, step: str, name: str) -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    sender.send({"describe": describe, "measure": measure}[step](name))


def apart(step: str, name: str) -> Row:
    """One step in a process of its own, that may hang or die."""
    context = multiprocessing.get_context("fork")  # torch and the exporter are loaded once, in the parent
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, step, name))
    started = time.perf_counter()
    child.start()
    sender.close()
    failed = {"trains": "?", "exports": "?", "dynamic": "?"} if step == "measure" else {}
    try:
        row = receiver.recv() if receiver.poll(TIME_LIMIT) else failed | {"error": f"not done in {TIME_LIMIT} s"}
    except EOFError:
        row = None
    child.kill()
    child.join()
    if row is None:
        row = failed | {"error": f"the process ended with exit code {child.exitcode}"}
    return {"step": step, "name": name, **row, "seconds": round(time.perf_counter() - started, 1)}


def read(path: Path) -> dict[str, dict[str, Row]]:
    """Rows by step and name."""
    rows: dict[str, dict[str, Row]] = {"run": {}, "describe": {}, "measure": {}}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["step"]][row["name"]] = row
    return rows


def order(described: dict[str, Row], max_params: float) -> list[str]:
    """Names to measure: the smallest of each timm file, that of each kind, then the others up to `max_params`."""
    models = sorted((r for r in described.values() if "params" in r), key=lambda r: r["params"])
    names = []
    for key in ("module", "kind"):
        first = {r[key]: r for r in reversed(models)}
        names += [r["name"] for r in sorted(first.values(), key=lambda r: r["params"]) if r["params"] <= LARGEST]
    return list(dict.fromkeys(names + [r["name"] for r in models if r["params"] <= max_params]))


def run(step: str, names: list[str], path: Path) -> None:
    """Append one row per name to `path`; names that are there already are skipped."""
    done = read(path)[step]
    left = [n for n in names if n not in done]
    started = time.perf_counter()
    with path.open("a", encoding="utf-8") as file:
        for i, name in enumerate(left, 1):
            row = apart(step, name)
            file.write(json.dumps(row) + "\n")
            file.flush()
            pace = (time.perf_counter() - started) / i
            result = " | ".join(str(row.get(k, "-")) for k in ("sizes", "trains", "exports", "dynamic", "error"))
            print(f"{step} {i}/{len(left)} {name}: {result}; {row['seconds']} s, "
                  f"{pace * (len(left) - i) / 60:.0f} min left at this pace", flush=True)  # fmt: skip


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
            run("describe", names, arguments.output)
            described = {n: r for n, r in read(arguments.output)["describe"].items() if n in set(names)}
            run("measure", order(described, arguments.max_params), arguments.output)
    if arguments.table:
        rows = read(arguments.output)
        write_table(arguments.table, rows["run"], rows["describe"], rows["measure"])


if __name__ == "__main__":
    main()
