"""How long short commands take against `python -c "import torch, timm"`, which every tool that imports both first pays.

    pip install "segdeploy[all-cpu]"
    python benchmarks/bench_startup.py -o benchmarks/results/startup_<hardware>_<yyyymmdd>.json

Each in a new process, in turns, after one round that fills the page cache: best and median, and how many times as long
`--help` takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from models import MODELS, make_run
from turns import clean_environment, compare, take_turns

from segdeploy.environment import describe_machine
from segdeploy.export.run import export_run
from segdeploy.files import write_json


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    clean_environment()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        size = (64, 96)  # what inspect reads is the file, whose size is that of the weights
        run = make_run(next(iter(MODELS)), size, Path(folder) / "run")
        bundle = str(export_run(run, Path(folder) / "bundle").bundle.path)
        segdeploy = [sys.executable, "-m", "segdeploy"]
        sides = {
            "segdeploy --help": [*segdeploy, "--help"],
            "segdeploy plugins list": [*segdeploy, "plugins", "list"],
            "segdeploy inspect BUNDLE": [*segdeploy, "inspect", bundle],
            "python -c 'import torch, timm'": [sys.executable, "-c", "import torch, timm"],
            "python -c pass": [sys.executable, "-c", "pass"],
        }
        found = take_turns(sides, given.rounds)
    content = {"results": compare(found["seconds"], "segdeploy --help"), "rounds": given.rounds, "machine": machine}
    print(json.dumps(content, indent=1))
    if given.output is not None:
        write_json(given.output, content | found)


if __name__ == "__main__":
    main()
