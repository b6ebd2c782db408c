"""`training.html`: a run on one page, made of the files in its folder and nothing else."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from segdeploy import run_folder as place
from segdeploy.errors import ModelError
from segdeploy.files import write_text
from segdeploy.model.spec import ModelSpec, parse_spec
from segdeploy.pages.curves import Curve, chart, spark
from segdeploy.pages.formats import DASH, percent, plural
from segdeploy.pages.matrix import MAX_MATRIX, heat_map, row_shares
from segdeploy.pages.render import templates
from segdeploy.progress import duration

if TYPE_CHECKING:
    from pathlib import Path

_CONFUSIONS = 8


@dataclass(frozen=True, slots=True)
class _Run:
    """What the folder holds; a file that is not there is an empty value."""

    name: str
    spec: ModelSpec
    rows: list[dict[str, Any]]
    config: dict[str, Any]
    metadata: dict[str, Any]
    description: dict[str, Any]
    best: dict[str, Any]
    examples: dict[str, Any]


def write_page(run: Path, model: Path | None = None) -> Path:
    """Write `training.html` into a run folder, from its files and those of its model; returns its path.

    Args:
        run: the run folder.
        model: the model folder, where it is not RUN/model.

    Raises:
        ModelError: not the folder of a training that keeps statistics.
    """
    return write_text(run / place.PAGE_FILE, training_page(run, model))


def training_page(run: Path, model: Path | None = None) -> str:
    """The page as HTML: one file that needs no script and no network.

    Raises:
        ModelError: see `write_page`.
    """
    found = _read(run, model or run / place.MODEL_FOLDER)
    return templates("segdeploy.train").get_template("training.html.j2").render(_context(found))


def _read(run: Path, model: Path) -> _Run:
    if not (run / place.METRICS_FILE).is_file() or not (model / place.SPEC_FILE).is_file():
        raise ModelError(
            f"{run}: expected a training's run folder with {place.METRICS_FILE} and "
            f"{place.MODEL_FOLDER}/{place.SPEC_FILE}"
        )
    rows = [json.loads(line) for line in (run / place.METRICS_FILE).read_text("utf-8").splitlines()]
    if not rows:
        raise ModelError(f"{run / place.METRICS_FILE}: is empty; no epoch has ended yet")
    epochs = {row["epoch"] for row in rows}
    best, examples = (_json(run / name) for name in (place.BEST_FILE, place.EXAMPLES_FILE))
    best = best if best.get("epoch") in epochs else {}
    return _Run(
        name=run.resolve().name,
        spec=parse_spec((model / place.SPEC_FILE).read_bytes(), str(model / place.SPEC_FILE)),
        rows=rows,
        config=_json(model / place.CONFIG_FILE),
        metadata=_json(model / place.METADATA_FILE),
        description=_json(run / place.DESCRIPTION_FILE),
        best=best,
        # Written one after the other: after a crash between them the pictures may be of another epoch.
        examples=examples if best and examples.get("epoch") == best["epoch"] else {},
    )


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def _context(run: _Run) -> dict[str, Any]:
    top = max(run.rows, key=lambda row: row["validation_mean_iou"])
    scores = run.best.get("validation", {})
    names = run.spec.classes.names
    matrix = scores.get("confusion_matrix")
    where = f"epoch {run.best['epoch']}" if run.best else ""
    return {
        "run": run.name,
        "quoted": shlex.quote(run.name),
        "spec": run.spec,
        "headline": _headline(run, top),
        "findings": _findings(run),
        "charts": _charts(run.rows, top["epoch"]),
        "classes": _classes(run),
        "has_test": "test" in run.best,
        "best": run.best,
        "matrix": heat_map(names, matrix, where) if matrix else "",
        "confusions": _confusions(names, matrix) if matrix else [],
        "many": len(names) > MAX_MATRIX,
        "examples": {end: run.examples.get(end, []) for end in ("worst", "best")},
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100) if run.config else "",
        "parts": _parts(run),
        "sizes": run.metadata.get("image", {}).get("sizes", []),
        "machine": run.description.get("machine", {}),
        "parameters": run.description.get("parameters"),
        "finished": _finished(run),
        "dash": DASH,
    }


def _finished(run: _Run) -> bool:
    """Whether there are no more epochs to come."""
    trainer = run.config.get("trainer", {})
    last = run.rows[-1]["epoch"]
    patience = trainer.get("early_stop", 0)
    return "test" in run.best or last >= trainer.get("epochs", 0) or 0 < patience <= last - run.best.get("epoch", last)


def _headline(run: _Run, top: dict[str, Any]) -> str:
    last, wanted = run.rows[-1]["epoch"], run.config.get("trainer", {}).get("epochs")
    said = f"Best validation mIoU {percent(top['validation_mean_iou'])} %, in epoch {top['epoch']}"
    if _finished(run):
        early = f", stopped early of {wanted}" if wanted is not None and last < wanted else ""
        said += f" of {last}{early}"
    else:
        said += f"; {last} of {wanted} epochs are done"
    test = run.best.get("test", {}).get("mean_iou")
    return f"{said}. Test mIoU of these weights: {percent(test)} %." if test is not None else f"{said}."


def _findings(run: _Run) -> list[str]:
    seconds = sum(row["seconds"] for row in run.rows)
    rate = median(row["training_images_per_second"] for row in run.rows)
    said = [f"{duration(seconds)} for {plural(len(run.rows), 'epoch')}; {rate:.1f} training images/s (median)."]
    each = {n: s["iou"] for n, s in run.best.get("validation", {}).get("per_class_stats", {}).items()}
    known = sorted((iou, name) for name, iou in each.items() if iou is not None)
    if len(known) > 1:
        (low, worst), (high, best) = known[0], known[-1]
        said.append(f"Best class: {best}, IoU {percent(high)} %; worst class: {worst}, {percent(low)} %.")
    if absent := [name for name, iou in each.items() if iou is None]:
        said.append(f"Neither in the validation masks nor predicted, so not part of the mean: {', '.join(absent)}.")
    return said


def _charts(rows: list[dict[str, Any]], best: int) -> list[tuple[str, Any]]:
    def values(key: str) -> list[tuple[int, float | None]]:
        return [(row["epoch"], row.get(key)) for row in rows]

    losses = (
        Curve("training", values("training_loss"), 1),
        Curve("validation", values("validation_loss"), 0, dashed=True),
    )
    scores = (
        Curve("mIoU", values("validation_mean_iou"), 0),
        Curve("pixel accuracy", values("validation_pixel_accuracy"), 2, dashed=True),
    )
    rate = (Curve("learning rate", values("learning_rate"), 3),)
    speed = (Curve("images/s", values("training_images_per_second"), 4),)
    drawn = (
        ("Loss", chart("loss", "Loss over the epochs", losses, ".4f", marked=best)),
        ("Validation scores", chart("scores", "Scores over the epochs", scores, ".4f", marked=best, top=1.0)),
        ("Learning rate", chart("rate", "Learning rate at the end of each epoch", rate, ".2e")),
        ("Training speed, images/s", chart("speed", "Training images per second of each epoch", speed, ".1f")),
    )
    return [(title, svg) for title, svg in drawn if svg]


def _classes(run: _Run) -> list[dict[str, Any]]:
    """A line for each class: its share of the training pixels, its scores, and its IoU over the epochs."""
    pixels = {c["name"]: c["pixels"] for c in run.metadata.get("mask", {}).get("classes", [])}
    total = sum(pixels.values())
    parts = {part: run.best.get(part, {}).get("per_class_stats", {}) for part in ("validation", "test")}
    return [
        {
            "name": name,
            "color": color,
            "share": pixels[name] / total if total and name in pixels else None,
            **{part: stats.get(name, {}) for part, stats in parts.items()},
            "curve": spark(
                f"iou-{i}",
                f"Validation IoU of {name} over the epochs",
                [(row["epoch"], row.get("validation_class_iou", {}).get(name)) for row in run.rows],
            ),
        }
        for i, (name, color) in enumerate(zip(run.spec.classes.names, run.spec.classes.colors, strict=True))
    ]


def _confusions(names: tuple[str, ...], matrix: list[list[int]]) -> list[tuple[str, str, float]]:
    """True class, predicted class and share of the true class's pixels: the largest first."""
    cells = [
        (names[i], names[j], share)
        for i, shares in enumerate(row_shares(matrix))
        for j, share in enumerate(shares)
        if i != j and share
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:_CONFUSIONS]


def _parts(run: _Run) -> list[dict[str, Any]]:
    """The parts of the data: samples, table, checksum of the samples' files and of the written split."""
    about, split = run.description.get("data", {}), run.description.get("split", {})
    digests = split.get("sha256", {})
    return [{"name": part, **facts, "split": digests.get(part)} for part, facts in about.items()]
