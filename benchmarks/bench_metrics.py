"""Cost of the scores of one image, side by side in one run: segdeploy's counts against what others use.

    pip install opencv-python-headless torchmetrics "segdeploy[all-cpu]"
    python benchmarks/bench_metrics.py TEST.csv -c benchmarks/camvid/fpn_mobilenetv3.yaml

Region: the confusion matrix, against torchmetrics (JaccardIndex, and segmentation.MeanIoU, which has no ignored class:
one class more stands for it) and against three torch.histc of the labelled pixels, as in mmsegmentation's IoUMetric.
Boundary: the counts of boundary IoU, against the authors' mask_to_boundary (cv2.erode) for each class of both maps.

Every side gets its own kind of array, made before the clock starts: uint8 for segdeploy and OpenCV, int64 tensors for
torch. The sides take turns on each image, in an order that rotates; each image gives one ratio. A prediction is the
mask, shifted. On every image all sides must find the same numbers.
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

SIZES = ((360, 480), (720, 960), (1024, 2048))
SHIFT = 4


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
    eroded = cv2.erode(padded, np.ones((3, 3), dtype=np.uint8), iterations=dilation)
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
    """What is timed, ours first in each group."""
    y, x = torch.from_numpy(target).long(), torch.from_numpy(predicted).long()
    # MeanIoU cannot ignore: in both maps the pixels become one more class, which is left out afterwards.
    y_all, x_all = y.where(y != IGNORE, count)[None], x.where(y != IGNORE, count)[None]
    jaccard = MulticlassJaccardIndex(count, average=None, ignore_index=IGNORE, validate_args=False)
    mean_iou = MeanIoU(count + 1, per_class=True, input_format="index")

    def updated(metric: torchmetrics.Metric, x: torch.Tensor, y: torch.Tensor) -> torchmetrics.Metric:
        metric.reset()
        metric.update(x, y)
        return metric

    return {
        "region": {
            "segdeploy confusion_matrix": lambda: confusion_matrix(target, predicted, count),
            "torchmetrics JaccardIndex": lambda: updated(jaccard, x, y),
            "torchmetrics MeanIoU": lambda: updated(mean_iou, x_all, y_all),
            "torch.histc": lambda: histogram(y, x, count),
        },
        "boundary": {
            "segdeploy boundary_counts": lambda: boundary_counts(target, predicted, count),
            "cv2.erode by class": lambda: boundary_loop(target, predicted, count),
        },
    }


def check(found: dict[str, Any], count: int) -> None:
    """All sides must agree; JaccardIndex and MeanIoU have a value of their own for absent classes."""
    iou = Scores(found["segdeploy confusion_matrix"]).iou
    present = ~np.isnan(iou)
    both, union = found["torch.histc"]
    others = {
        "torchmetrics JaccardIndex": found["torchmetrics JaccardIndex"].compute(),
        "torchmetrics MeanIoU": found["torchmetrics MeanIoU"].compute()[:count],
        "torch.histc": both / union,
    }
    for name, values in others.items():
        np.testing.assert_allclose(values.numpy()[present], iou[present], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(found["segdeploy boundary_counts"], found["cv2.erode by class"])


def measure(masks: list[NDArray[np.uint8]], count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each side on each image, in turns."""
    times: dict[str, dict[str, list[float]]] = {}
    for mask in masks:
        moved = np.roll(mask, (SHIFT, SHIFT), (0, 1))
        groups = sides(mask, np.where(moved == IGNORE, np.uint8(0), moved), count)
        check({name: side() for group in groups.values() for name, side in group.items()}, count)
        for group, members in groups.items():
            order = list(members)
            seconds: dict[str, list[float]] = {name: [] for name in order}
            for turn in range(rounds):
                for name in order[turn % len(order) :] + order[: turn % len(order)]:
                    started = time.perf_counter()
                    members[name]()
                    seconds[name].append(time.perf_counter() - started)
            for name, values in seconds.items():
                times.setdefault(group, {}).setdefault(name, []).append(float(np.median(values)) * 1e3)
    result: dict[str, Any] = {}
    for group, by_name in times.items():
        ours = np.array(next(iter(by_name.values())))
        result[group] = {}
        for name, values in by_name.items():
            ratios = np.array(values) / ours
            result[group][name] = {
                "ms_median": round(float(np.median(values)), 3),
                "ratio_median": round(float(np.median(ratios)), 2),
                "ratio_min": round(float(ratios.min()), 2),
                "ratio_max": round(float(ratios.max()), 2),
            }
    return result


def main() -> None:
    """Run all sides at all sizes and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--images", type=int, default=12, help="masks, evenly from the table")
    parser.add_argument("--rounds", type=int, default=8, help="turns of all sides on each image")
    parser.add_argument("--threads", type=int, default=1, help="of torch and OpenCV; segdeploy's NumPy uses one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    config = load_config(arguments.config)
    samples = read_table(arguments.table, config.image.name, config.mask.name)
    classes = settle_classes(read_facts(samples), config.mask.preprocessing, "masks")
    step = max(1, len(samples) // arguments.images)
    chosen = [read_mask(s.mask, classes) for s in samples[::step][: arguments.images]]
    result = {}
    for height, width in SIZES:
        sized = [np.array(Image.fromarray(m).resize((width, height), Image.Resampling.NEAREST)) for m in chosen]
        result[f"{height}x{width}"] = measure(sized, len(classes), arguments.rounds)
    print(
        json.dumps(
            {
                "per_image": result,
                "images": len(chosen),
                "rounds": arguments.rounds,
                "classes": len(classes),
                "threads": arguments.threads,
                "opencv": cv2.__version__,
                "torchmetrics": torchmetrics.__version__,
                "machine": describe_machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
