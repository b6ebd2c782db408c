"""A folder of JPEG files to PNG masks: `segdeploy predict` against two loops written by hand, side by side in one run.

    pip install "segmentation-models-pytorch>=0.5" "segdeploy[all-cpu]"
    python benchmarks/bench_predict.py TEST.csv --train TRAIN.csv -c benchmarks/camvid/fpn_mobilenetv3.yaml

All sides run one network with one set of weights (`same_network.py`), on the same images, with the same number of
engine threads: segdeploy the bundle that `segdeploy import` and `segdeploy export` made of it, by onnxruntime;
`by_hand/predict_torch.py` the original by torch, in two memory formats; `by_hand/predict_onnxruntime.py` a plain export
that gives logits. Each is a process of its own and takes turns with the others, once with all images and once with one:

    whole      start-up included, all images
    per_image  the rest after one image, per image: what a longer folder costs

Wall clock first; CPU time of all threads beside it, for segdeploy decodes and encodes in threads of its own. `equal` is
the share of pixels with segdeploy's label.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from processes import in_turns, run, samples, summary
from same_network import FIRST, commands, make

from segdeploy.data.table import read_table
from segdeploy.environment import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from processes import Spent


def equal_share(one: Path, other: Path) -> float:
    """Share of pixels with one label, over all masks of two folders."""
    names = sorted(p.name for p in one.glob("*.png"))
    assert names == sorted(p.name for p in other.glob("*.png")), f"{other}: other masks than {one}"
    pairs = [(np.asarray(Image.open(one / n)), np.asarray(Image.open(other / n))) for n in names]
    return sum(int((a == b).sum()) for a, b in pairs) / sum(a.size for a, _ in pairs)


def measure(work: Path, models: Path, size: tuple[int, int], count: int, threads: int, rounds: int) -> dict[str, Any]:
    """All sides with `threads`, over `work`/all and `work`/one."""
    sides: dict[str, Callable[[], Spent]] = {}
    made = commands(models, size, threads)
    for name, command in made.items():
        for images in ("all", "one"):
            words = command(work / images, work / f"{name} {images}")
            sides[f"{name} {images}"] = lambda words=words: run(words, threads, work)  # type: ignore[misc]
    found = in_turns(sides, rounds)
    result: dict[str, Any] = {}
    for clock in ("wall", "cpu"):
        whole = {name: [getattr(s, clock) for s in found[f"{name} all"]] for name in made}
        one = {name: [getattr(s, clock) for s in found[f"{name} one"]] for name in made}
        rest = {n: [(a - b) / (count - 1) for a, b in zip(whole[n], one[n], strict=True)] for n in made}
        result[clock] = {"whole_seconds": summary(whole, FIRST), "per_image_seconds": summary(rest, FIRST)}
    ours = work / f"{FIRST} all"
    result["equal"] = {name: round(equal_share(ours, work / f"{name} all"), 6) for name in made if name != FIRST}
    result["samples"] = samples(found)
    return result


def main() -> None:
    """Run all sides and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--train", type=Path, required=True, help="table on which the network is trained briefly")
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="where the network's forms are kept for another run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = given.models or work / "models"
        size = make(models, given.train, given.config)
        files = [s.image for s in read_table(given.table, "image", None, None)][: given.images]
        assert len(files) > 1, "expected two images or more"
        for name, chosen in (("all", files), ("one", files[:1])):
            (work / name).mkdir()
            for file in chosen:
                (work / name / f"{file.stem}.jpg").symlink_to(file.resolve())
        result = {
            "images": len(files),
            "image_size": list(Image.open(files[0]).size),
            "network_size": [size[1], size[0]],
            "rounds": given.rounds,
            "threads": {str(n): measure(work, models, size, len(files), n, given.rounds) for n in given.threads},
            "machine": describe_machine(),
        }
    text = json.dumps(result, indent=2)
    if given.output:
        given.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
