"""What a training says about itself while it runs: numbers, the page, TensorBoard, trackers; and what its data are."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy import files
from segdeploy import run_folder as place
from segdeploy.data.scan import ScanReport
from segdeploy.metrics import none_if_nan
from segdeploy.train.card import model_card
from segdeploy.train.page import write_page
from segdeploy.train.track import Trackers

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from segdeploy.classes import ClassMap
    from segdeploy.config.schema import RunConfig
    from segdeploy.metrics import Scores
    from segdeploy.model.spec import ModelSpec
    from segdeploy.run_folder import Skip
    from segdeploy.train.examples import Extremes

_PARTS = ("training", "validation", "test")
_NO_SCORES = ("training_images_per_second", "validation_class_iou")


class Record:
    """The history of a run, in memory and on disk; a context manager that holds TensorBoard and trackers open.

    Args:
        run: the run folder.
        model: the model folder, which need not be in it.
        config: of the run.
        spec: the output feature's name and the classes.
        epochs: how many epochs are done; what the files say of later ones is forgotten.
        skip: what is not written.

    Raises:
        MissingPartError: see `Trackers`.
    """

    def __init__(self, run: Path, model: Path, config: RunConfig, spec: ModelSpec, epochs: int, skip: Skip) -> None:
        self.run, self.model, self.config, self.spec, self.skip = run, model, config, spec, skip
        self.history = _read_history(run / place.METRICS_FILE, epochs)
        self.best: dict[str, Any] = _read_best(run / place.BEST_FILE, epochs)
        """`epoch`, `validation` and, once they are known, `test`: the statistics of the best weights."""
        self._trackers = Trackers(config.trainer.trackers)

    def __enter__(self) -> Self:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        logs = str(self.run / place.MODEL_FOLDER / place.LOGS_FOLDER)
        self._board = None if self.skip.log else SummaryWriter(logs, purge_step=len(self.history) + 1)
        try:
            self._trackers.open(self.run, self.config.model_dump(mode="json"))
        except BaseException as e:
            self.__exit__(type(e), e, e.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()
        self._trackers.close(finished=error is None)

    def add(self, row: dict[str, Any], scores: Scores, extremes: Extremes, *, best: bool) -> None:
        """One epoch's numbers.

        Args:
            row: what `metrics.jsonl` holds of it, all but the IoU of each class.
            scores: of the validation part.
            extremes: the images of the validation part that it did worst and best on.
            best: whether its weights are the best so far.
        """
        names = self.spec.classes.names
        each = {name: none_if_nan(round(iou, 6)) for name, iou in zip(names, scores.iou.tolist(), strict=True)}
        row = row | {"validation_class_iou": each}
        self.history.append(row)
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, dict):
                    for name, one in value.items():
                        self._add_scalar(f"{key}/{name}", one, row["epoch"])
                elif key != "epoch":
                    self._add_scalar(key, value, row["epoch"])
        if best:
            self.best = {"epoch": row["epoch"], "validation": scores.to_dict(self.spec.classes)}
        self._write(extremes if best else None)
        self._trackers.epoch(row)

    def _add_scalar(self, tag: str, value: float | None, epoch: int) -> None:
        if value is not None and self._board is not None:
            self._board.add_scalar(tag, value, epoch)

    def _write(self, extremes: Extremes | None = None) -> None:
        if self.skip.statistics:
            return
        files.write_text(self.run / place.METRICS_FILE, "".join(json.dumps(r) + "\n" for r in self.history))
        files.write_json(self.run / place.STATISTICS_FILE, self.statistics())
        files.write_json(self.run / place.BEST_FILE, self.best)
        if extremes is not None and not self.skip.pictures:
            drawn = extremes.draw(self.spec)
            files.write_json(self.run / place.EXAMPLES_FILE, {"epoch": self.best["epoch"], **drawn})
        if self.history:  # not of a finished run that kept none and was resumed
            write_page(self.run, self.model)

    @property
    def knows_best(self) -> bool:
        """Whether the scores of the best weights are at hand: not of a run that an earlier version began."""
        return "epoch" in self.best

    def add_best(self, epoch: int, scores: Scores) -> None:
        """The scores of the best weights on the validation part, where `knows_best` is false."""
        self.best = {"epoch": epoch, "validation": scores.to_dict(self.spec.classes)}
        self._write()

    @property
    def test(self) -> dict[str, Any] | None:
        """Statistics of the test part, JSON-ready, once they are known."""
        return self.best.get("test")

    def add_test(self, statistics: dict[str, Any]) -> None:
        """The best weights' scores on the test part, looked at once, when training is over."""
        self.best = self.best | {"test": statistics}
        self._write()

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
        return {part: _by_feature(self.spec.mask_name, metrics) for part, metrics in found.items()}

    def write_card(self, report: ScanReport, samples: dict[str, int]) -> None:
        """`model_card.md`; `samples` counts the samples of each part."""
        text = model_card(self.spec, self.config, report, samples, self.best, self.history)
        files.write_text(self.run / place.CARD_FILE, text)


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


def _read_best(path: Path, epochs: int) -> dict[str, Any]:
    """What was written of the best epoch, if that is among the first `epochs`."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found if found.get("epoch", epochs + 1) <= epochs else {}


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
