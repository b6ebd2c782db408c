"""What a training says about itself while it runs and at its end: numbers, curves, TensorBoard, the model card."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.data.scan import ScanReport
from segdeploy.train.curves import write_curves

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.model.spec import ModelSpec
    from segdeploy.run_folder import Skip

_PARTS = ("training", "validation", "test")
_NO_SCORES = ("training_images_per_second",)


class Record:
    """The history of a run, in memory and on disk; a context manager that holds TensorBoard's file open.

    Args:
        run: the run folder.
        name: the output feature's name.
        epochs: how many epochs are done; what the files say of later ones is forgotten.
        skip: what is not written.
    """

    def __init__(self, run: Path, name: str, epochs: int, skip: Skip) -> None:
        self.run, self.name, self.skip = run, name, skip
        self.history = _read_history(run / place.METRICS_FILE, epochs)
        self.test: dict[str, Any] | None = None
        """Statistics of the test part, JSON-ready, once they are known."""

    def __enter__(self) -> Self:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        logs = str(self.run / place.MODEL_FOLDER / place.LOGS_FOLDER)
        self._board = None if self.skip.log else SummaryWriter(logs, purge_step=len(self.history) + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, row: dict[str, Any]) -> None:
        """One epoch's numbers."""
        self.history.append(row)
        if self._board is not None:
            for key, value in row.items():
                if key != "epoch" and value is not None:
                    self._board.add_scalar(key, value, row["epoch"])
        if not self.skip.statistics:
            files.write_text(self.run / place.METRICS_FILE, "".join(json.dumps(r) + "\n" for r in self.history))
            files.write_json(self.run / place.STATISTICS_FILE, self.statistics())
            write_curves(self.run / place.CURVES_FILE, self.history)

    def add_test(self, statistics: dict[str, Any]) -> None:
        """The best weights' scores on the test part, looked at once, when training is over."""
        self.test = statistics
        if not self.skip.statistics:
            files.write_json(self.run / place.STATISTICS_FILE, self.statistics())

    def statistics(self) -> dict[str, Any]:
        """Ludwig's shape: part -> feature -> metric -> list, one value per epoch; of the test part one value."""
        found: dict[str, dict[str, list[Any]]] = {part: {} for part in _PARTS}
        for row in self.history:
            for key, value in row.items():
                part, _, metric = key.partition("_")
                if part in found and key not in _NO_SCORES:
                    found[part].setdefault(metric, []).append(value)
        for metric, value in (self.test or {}).items():
            if isinstance(value, float):  # not the tables of each class
                found["test"][metric] = [value]
        return {part: _by_feature(self.name, metrics) for part, metrics in found.items()}

    def write_card(self, spec: ModelSpec, report: ScanReport, samples: dict[str, int]) -> None:
        """`model_card.md`; `samples` counts the samples of each part."""
        if not self.history:
            return  # a finished run that kept no statistics and was resumed
        best = max(self.history, key=lambda row: row["validation_mean_iou"])
        files.write_text(self.run / place.CARD_FILE, model_card(spec, report, samples, best, self.test))


def _by_feature(name: str, metrics: dict[str, list[Any]]) -> dict[str, Any]:
    if not metrics:
        return {}
    combined = {"combined": {"loss": metrics["loss"]}} if "loss" in metrics else {}
    return {name: metrics, **combined}


def _read_history(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` up to `epochs`; a crash may have left one more, or none."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["epoch"] <= epochs]


def training_set_metadata(config: RunConfig, report: ScanReport) -> dict[str, Any]:
    """What the training data look like, JSON-ready: classes and how masks spell them, pixels, sizes."""
    classes, image, mask = report.classes, config.image, config.mask
    return {
        "mask": {
            "name": mask.name,
            "column": mask.column or mask.name,
            "num_classes": len(classes),
            "classes": [
                {"id": i, "name": name, "color": list(color), "pixels": int(pixels), "masks": int(masks)}
                for i, (name, color, pixels, masks) in enumerate(
                    zip(classes.names, classes.colors, report.pixels, report.present, strict=True)
                )
            ],
            **classes.model_dump(
                mode="json", include={"encoding", "values", "mask_colors", "ignore_index", "ignore_color"}
            ),
            "ignored_pixels": report.ignored,
        },
        "image": {
            "name": image.name,
            "column": image.column or image.name,
            "preprocessing": image.preprocessing.model_dump(mode="json"),
            "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in report.sizes.most_common()],
        },
    }


def report_of(metadata: dict[str, Any], classes: ClassMap) -> ScanReport:
    """The report that `training_set_metadata` was made from."""
    found = metadata["mask"]["classes"]
    sizes = Counter({(s["height"], s["width"]): s["images"] for s in metadata["image"]["sizes"]})
    pixels, masks = (np.array([c[key] for c in found], np.int64) for key in ("pixels", "masks"))
    return ScanReport(classes, pixels, metadata["mask"]["ignored_pixels"], masks, sizes)


def model_card(
    spec: ModelSpec, report: ScanReport, samples: dict[str, int], best: dict[str, Any], test: dict[str, Any] | None
) -> str:
    """Markdown: what the model takes and gives, what it was trained on, how good it is, how to use it."""
    size = spec.preprocessing
    total = max(1, int(report.pixels.sum()))
    rows = [
        f"| {i} | {name} | {'#%02x%02x%02x' % color} | {pixels / total:.2%} |"  # noqa: UP031
        for i, (name, color, pixels) in enumerate(
            zip(spec.classes.names, spec.classes.colors, report.pixels, strict=True)
        )
    ]
    scores = [
        (
            f"- validation, epoch {best['epoch']}: mean IoU {_number(best['validation_mean_iou'])}, "
            f"pixel accuracy {_number(best['validation_pixel_accuracy'])}"
        )
    ]
    if test is not None:
        scores.append(f"- test: mean IoU {_number(test['mean_iou'])}, pixel accuracy {_number(test['pixel_accuracy'])}")
    counts = ", ".join(f"{count} {part}" for part, count in samples.items())
    return f"""# {spec.mask_name}: {spec.encoder.name} + {spec.decoder.name}

Semantic segmentation: a uint8 RGB image to a uint8 map of {len(spec.classes)} classes. The network runs at
{size.width}x{size.height} pixels (resize: {size.resize}). Encoder: {spec.encoder}. Decoder: {spec.decoder}.

## Classes

| id | name | colour | share of the training pixels |
|---|---|---|---|
{chr(10).join(rows)}

## Data

Samples: {counts}. Which sample was in which part is in `splits/`.

## Scores

{chr(10).join(scores)}

Mean over the classes that occur, pixels without a label left out, measured at each mask's own size.

## Use

```
segdeploy predict model IMAGE... -o masks
segdeploy evaluate model --dataset TABLE
segdeploy export model -o bundle
```

```python
from segdeploy import SegModel

predictions, _ = SegModel.load("model").predict({{"{spec.image_column}": ["IMAGE"]}})
```
"""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
