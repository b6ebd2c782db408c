"""The label check, side by side in one run: first look, second look, and a plain loop of Pillow and np.unique.

    pip install "segdeploy[all-cpu]"
    python benchmarks/bench_scan.py

It writes 10,000 small JPEG images and PNG masks into a temporary folder. The plain loop is what people write to look at
their labels: every image and mask opened in turn, the mask's values by np.unique, the sizes compared. It has neither
positions nor digests nor rules. The sides take turns, each first look with an empty cache; files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.data.facts import read_facts
from segdeploy.data.facts_cache import FactsCache
from segdeploy.data.scan import check
from segdeploy.data.table import Sample
from segdeploy.environment import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 8


def generate(folder: Path, count: int, side: int) -> list[Sample]:
    """Blocky masks of `CLASSES` classes, and images that are noise about them."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        labels = rng.integers(0, CLASSES, (side // 16, side // 16), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        noise = rng.integers(0, 32, (side // 4, side // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        image, mask = folder / f"{i}.jpg", folder / f"{i}.png"
        Image.fromarray(labels[..., None] * np.uint8(28) + noise).save(image)
        Image.fromarray(labels).save(mask)
        samples.append(Sample(image, mask))
    return samples


def plain(samples: list[Sample]) -> int:
    """Values that occur, by the loop that everybody writes."""
    found: set[int] = set()
    for sample in samples:
        image = np.asarray(Image.open(sample.image).convert("RGB"))
        assert sample.mask is not None
        mask = np.asarray(Image.open(sample.mask))
        values, _ = np.unique(mask, return_counts=True)
        found.update(values.tolist())
        if mask.shape != image.shape[:2]:
            raise ValueError(sample)
    return len(found)


def ours(samples: list[Sample], cache: Path, classes: ClassMap) -> int:
    """The same with positions, digests and all rules."""
    facts = read_facts(samples, cache=FactsCache(cache))
    if findings := check({"training": facts}, classes):
        raise ValueError(findings[0])
    return len({v for f in facts for v in f.mask.codes})  # type: ignore[union-attr]


def main() -> None:
    """Run all sides and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=128, help="pixels, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    classes = ClassMap(names=tuple(map(str, range(CLASSES))), colors=default_colors(CLASSES), encoding="class_id")
    seconds: dict[str, list[float]] = {"plain": [], "first": [], "second": []}
    with tempfile.TemporaryDirectory(prefix="segdeploy-") as name:
        samples = generate(Path(name), arguments.samples, arguments.side)
        time.sleep(2.5)  # files that are younger are not kept
        plain(samples), ours(samples, Path(name) / "warm.sqlite", classes)
        for turn in range(arguments.rounds):
            cache = Path(name) / f"{turn}.sqlite"
            sides: list[tuple[str, Callable[[], int]]] = [
                ("plain", partial(plain, samples)),
                ("first", partial(ours, samples, cache, classes)),
                ("second", partial(ours, samples, cache, classes)),
            ]
            for side, work in sides if turn % 2 == 0 else (*sides[1:], sides[0]):
                started = time.perf_counter()
                if work() != CLASSES:
                    raise ValueError(side)
                seconds[side].append(time.perf_counter() - started)
    ratios = {
        side: sorted(round(a / b, 2) for a, b in zip(seconds["plain"], seconds[side], strict=True))
        for side in ("first", "second")
    }
    print(
        json.dumps(
            {
                "samples_per_second": {k: round(arguments.samples / float(np.median(v))) for k, v in seconds.items()},
                "times_plain": ratios,
                "samples": arguments.samples,
                "side": arguments.side,
                "rounds": arguments.rounds,
                "machine": describe_machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
