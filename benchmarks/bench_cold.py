"""From the start of a process to the first mask on disk: a bundle against torch, side by side in one run.

    pip install "segmentation-models-pytorch>=0.5" "segdeploy[all-cpu]"
    python benchmarks/bench_cold.py IMAGE.jpg --train TRAIN.csv -c benchmarks/camvid/fpn_mobilenetv3.yaml

Every side is a command that reads one JPEG file and writes one PNG mask with the same network and weights
(`same_network.py`), and takes turns with the others: `segdeploy predict` of a bundle by onnxruntime, of the run by
torch, and the loops of `by_hand`. `segdeploy --help` and an empty Python stand beside them. Files are in the page cache
and modules are compiled, for each side runs once before the clock counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from processes import Spent, in_turns, run, samples, summary
from same_network import FIRST, commands, make

from segdeploy.environment import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run all sides and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--train", type=Path, required=True, help="table on which the network is trained briefly")
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="where the network's forms are kept for another run")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = given.models or work / "models"
        size = make(models, given.train, given.config)
        images = work / "images"
        images.mkdir()
        (images / f"{given.image.stem}.jpg").symlink_to(given.image.resolve())
        words = {name: side(images, work / name) for name, side in commands(models, size, given.threads).items()}
        words["segdeploy, torch"] = [
            models / "run" if word == models / "bundle" else "torch" if word == "onnxruntime" else word
            for word in words[FIRST]
        ]
        words["segdeploy --help"] = [sys.executable, "-m", "segdeploy", "--help"]
        words["python -c pass"] = [sys.executable, "-c", "pass"]
        sides: dict[str, Callable[[], Spent]] = {
            name: lambda line=line: run(line, given.threads, work)  # type: ignore[misc]
            for name, line in words.items()
        }
        found = in_turns(sides, given.rounds)
        result = {
            "wall": summary({name: [s.wall for s in spent] for name, spent in found.items()}, FIRST),
            "cpu": summary({name: [s.cpu for s in spent] for name, spent in found.items()}, FIRST),
            "rounds": given.rounds,
            "threads": given.threads,
            "samples": samples(found),
            "machine": describe_machine(),
        }
    text = json.dumps(result, indent=2)
    if given.output:
        given.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
