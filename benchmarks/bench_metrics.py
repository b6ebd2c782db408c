"""Cost of the scores, side by side in one run: segdeploy's counts against what others use.

    pip install opencv-python-headless torchmetrics "segdeploy[all-cpu]"
    python benchmarks/bench_metrics.py TEST.csv -c benchmarks/camvid/fpn_mobilenetv3.yaml

Region: the confusion matrix, against torchmetrics (JaccardIndex without its validation, and segmentation.MeanIoU,
which has no ignored class: one class more stands for it) and against three torch.histc of the labelled pixels, as
mmsegmentation's IoUMetric has it. Boundary: the counts of boundary IoU, against the authors' mask_to_boundary
(cv2.erode) for each class of both maps.

Everybody begins with the same uint8 arrays; what an API needs beyond is done inside the clock. segdeploy has one
thread; torch and OpenCV have as many as `--threads` says, one number after the other. The sides take turns of 50 ms or
one call, in an order that rotates; each round gives one ratio. All must find the same numbers: the same confusion
matrix, or the same IoU of each class.

Label maps are the table's masks at three sizes, relabelled by the cells of a grid where there are more classes than
theirs; a prediction is the mask, shifted. `noise` has a random class in each pixel of both maps, as no network has.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torchmetrics
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from segdeploy.boundary import boundary_counts
from segdeploy.classes import IGNORE
from segdeploy.config import load_config
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import read_facts
from segdeploy.data.masks import read_mask
from segdeploy.data.table import read_table
from segdeploy.environment import describe_machine
from segdeploy.metrics import Scores, confusion_matrix

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CASES = {"360x480": (11, 10, 360, 480), "1024x2048": (19, 2, 1024, 2048), "512x512": (150, 8, 512, 512)}
"""Classes, images in the batch, height, width."""
SHIFT = 4
TURN = 0.05
"""Seconds."""
OURS = "segdeploy confusion_matrix", "segdeploy boundary_counts"


def histogram(target: torch.Tensor, predicted: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersection and union as mmsegmentation's IoUMetric.intersect_and_union counts them."""
    known = target != IGNORE
    predicted, target = predicted[known], target[known]
    same = predicted[predicted == target]
    both, one, other = (torch.histc(x.float(), bins=count, min=0, max=count - 1) for x in (same, predicted, target))
    return both, one + other - both


def mask_to_boundary(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of https://github.com/bowenc0221/boundary-iou-api, with its ratio of 0.02."""
    height, width = mask.shape
    dilation = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = np.asarray(cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=dilation), np.uint8)
    return mask - eroded[1 : height + 1, 1 : width + 1]


def boundary_loop(target: NDArray[np.uint8], predicted: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Boundary IoU's counts, one binary mask after another."""
    counts = np.zeros((2, count), np.int64)
    predicted = np.where(target == IGNORE, np.uint8(IGNORE), predicted)
    for i in range(count):
        a = mask_to_boundary((target == i).astype(np.uint8))
        b = mask_to_boundary((predicted == i).astype(np.uint8))
        counts[:, i] = (a & b).sum(), (a | b).sum()
    return counts


def sides(
    target: NDArray[np.uint8], predicted: NDArray[np.uint8], count: int
) -> dict[str, dict[str, Callable[[], Any]]]:
    """What is timed, ours first in each group; two label maps (N, H, W)."""

    def jaccard() -> MulticlassJaccardIndex:
        metric = MulticlassJaccardIndex(count, average=None, ignore_index=IGNORE, validate_args=False)
        metric.update(torch.from_numpy(predicted), torch.from_numpy(target))
        return metric

    def mean_iou() -> MeanIoU:
        # It cannot ignore: in both maps the pixels become one more class, which is left out afterwards. And it takes
        # means over images: as one tall image the batch has the IoU of its whole.
        tall = (1, -1, target.shape[-1])
        y, x = torch.from_numpy(target).long().reshape(tall), torch.from_numpy(predicted).long().reshape(tall)
        known = y != IGNORE
        metric = MeanIoU(count + 1, per_class=True, input_format="index")
        metric.update(x.where(known, count), y.where(known, count))
        return metric

    def boundaries(one: Callable[..., NDArray[np.int64]]) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.sum([one(y, x, count) for y, x in zip(target, predicted, strict=True)], axis=0)
        return counts

    return {
        "region": {
            OURS[0]: lambda: confusion_matrix(target, predicted, count),
            "torchmetrics JaccardIndex": jaccard,
            "torchmetrics MeanIoU": mean_iou,
            "torch.histc": lambda: histogram(torch.from_numpy(target), torch.from_numpy(predicted), count),
        },
        "boundary": {
            OURS[1]: lambda: boundaries(boundary_counts),
            "cv2.erode by class": lambda: boundaries(boundary_loop),
        },
    }


def check(found: dict[str, Any], count: int) -> None:
    """All sides must agree; MeanIoU has a value of its own for absent classes."""
    confusion = found[OURS[0]]
    iou = Scores(confusion).iou
    present = ~np.isnan(iou)
    np.testing.assert_array_equal(found["torchmetrics JaccardIndex"].confmat.numpy(), confusion)
    both, union = found["torch.histc"]
    np.testing.assert_array_equal(both.numpy(), np.diag(confusion))
    np.testing.assert_array_equal((union + both).numpy(), confusion.sum(0) + confusion.sum(1))
    values = found["torchmetrics MeanIoU"].compute()[:count].numpy()
    np.testing.assert_allclose(values[present], iou[present], rtol=1e-5)
    np.testing.assert_array_equal(found[OURS[1]], found["cv2.erode by class"])


def measure(target: NDArray[np.uint8], predicted: NDArray[np.uint8], count: int, rounds: int) -> dict[str, Any]:
    """Time of one call of each side, and how many times ours it is, in turns."""
    groups = sides(target, predicted, count)
    check({name: side() for group in groups.values() for name, side in group.items()}, count)
    result: dict[str, Any] = {}
    for group, members in groups.items():
        order = list(members)
        seconds: dict[str, list[float]] = {name: [] for name in order}
        for turn in range(rounds):
            for name in (order[(turn + i) % len(order)] for i in range(len(order))):
                calls, started, spent = 0, time.perf_counter(), 0.0
                while spent < TURN:
                    members[name]()
                    calls, spent = calls + 1, time.perf_counter() - started
                seconds[name].append(spent / calls)
        result[group] = {}
        for name, values in seconds.items():
            ratios = np.array(values) / np.array(seconds[order[0]])
            result[group][name] = {
                "ms_median": round(float(np.median(values)) * 1e3, 3),
                "ns_per_pixel": round(float(np.median(values)) / target.size * 1e9, 2),
                "ratio_median": round(float(np.median(ratios)), 1),
                "ratio_min": round(float(ratios.min()), 1),
                "ratio_max": round(float(ratios.max()), 1),
                "ratio_of_least": round(min(values) / min(seconds[order[0]]), 1),
            }
    return result


def maps(
    masks: list[NDArray[np.uint8]], count: int, height: int, width: int
) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pairs of target and prediction (N, H, W): from masks, and noise."""
    sized = np.stack([np.asarray(Image.fromarray(m).resize((width, height), Image.Resampling.NEAREST)) for m in masks])
    known = sized != IGNORE
    if count > sized[known].max() + 1:
        cells = np.arange(height)[:, None] // (height // 4) * 4 + np.arange(width) // (width // 4)
        sized = np.where(known, (sized + cells * 11) % count, IGNORE).astype(np.uint8)
    moved = np.roll(sized, (SHIFT, SHIFT), (1, 2))
    random = np.random.default_rng(0)
    target, predicted = (random.integers(0, count, sized.shape, dtype=np.uint8) for _ in range(2))
    target[~known] = IGNORE
    return {
        "masks": (sized, np.where(moved == IGNORE, np.uint8(0), moved)),
        "noise": (target, predicted),
    }


def main() -> None:
    """Run all sides at all sizes and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15, help="turns of all sides")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch and OpenCV")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    config = load_config(given.config)
    samples = read_table(given.table, config.image.name, config.mask.name)
    classes = settle_classes(read_facts(samples), config.mask.preprocessing, "masks")
    found: dict[str, Any] = {}
    for threads in given.threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        for case in given.cases:
            count, images, height, width = CASES[case]
            chosen = [read_mask(s.mask, classes) for s in samples[:: max(1, len(samples) // images)][:images] if s.mask]
            for kind, (target, predicted) in maps(chosen, count, height, width).items():
                row = {"classes": count, "shape": target.shape, **measure(target, predicted, count, given.rounds)}
                found.setdefault(str(threads), {})[f"{case} {kind}"] = row
    result = {
        "threads": found,
        "rounds": given.rounds,
        "opencv": cv2.__version__,
        "torchmetrics": torchmetrics.__version__,
        "machine": describe_machine(),
    }
    text = json.dumps(result, indent=2)
    if given.output:
        given.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
