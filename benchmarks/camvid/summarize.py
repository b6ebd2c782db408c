"""What runs reached, as Markdown and JSON: curve, test classes, seeds, time, parameters, machine.

    python summarize.py results/seed42 results/seed43 -o ../results/camvid_init_<hardware>_<yyyymmdd>.md --title "..."

Runs whose configurations differ in their seed alone stand together, with mean and spread of the test mIoU.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdeploy.files import write_json, write_text
from segdeploy.run_folder import BEST_FILE, CONFIG_FILE, DESCRIPTION_FILE, METRICS_FILE, MODEL_FOLDER

HOW = (
    "No pretrained weights. Scores are counted at the masks' own size, void left out of loss and union; the best epoch "
    "is that of the validation part, and the test part is looked at once, with its weights. Minutes are all epochs', "
    "validation included."
)
CURVE = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    name: str
    config: dict[str, Any]
    about: dict[str, Any]
    rows: list[dict[str, Any]]
    best: dict[str, Any]

    @property
    def minutes(self) -> float:
        """Training and validation of all epochs; checks before and the test at the end are not in it."""
        return sum(float(row["seconds"]) for row in self.rows) / 60

    @property
    def test(self) -> dict[str, Any]:
        """Scores of the best weights on the test part."""
        found: dict[str, Any] = self.best["test"]
        return found


def read(folder: Path) -> Run:
    """A run folder."""
    rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    config = json.loads((folder / MODEL_FOLDER / CONFIG_FILE).read_text())
    about = json.loads((folder / DESCRIPTION_FILE).read_text())
    return Run(folder.name, config, about, rows, json.loads((folder / BEST_FILE).read_text()))


def recipe(run: Run) -> str:
    """What two runs share that differ in their seed alone."""
    trainer = {k: v for k, v in run.config["trainer"].items() if k != "seed"}
    shared = run.config | {"trainer": trainer, "data": None}
    return json.dumps([shared, run.about["data"]], sort_keys=True)


def percent(value: float | None) -> str:
    """A share, in points."""
    return "-" if value is None else f"{100 * value:.1f}"


def group_text(runs: list[Run], number: int) -> list[str]:
    """One recipe."""
    first = runs[0]
    count, parameters = first.about["data"]["training"]["samples"], first.about["parameters"]
    encoder = first.config["input_features"][0]["encoder"]
    decoder = first.config["output_features"][0]["decoder"]
    epochs = [e for e in CURVE if e <= len(first.rows)]
    network = f"{decoder['type']} on {encoder.get('model_name') or encoder['type']}, {parameters:,} parameters"
    trainer = first.config["trainer"]
    columns = ("seed", "minutes", "best epoch", "validation mIoU %", "**test mIoU %**", "test pixel accuracy %",
               "test boundary IoU %")  # fmt: skip
    lines = [
        f"## Recipe {number}: {count} training images",
        "",
        f"{network}, {trainer['epochs']} epochs in batches of {trainer['batch_size']}.",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "--:|" * len(columns),
    ]
    for run in runs:
        best = run.rows[run.best["epoch"] - 1]
        test = run.test
        lines.append(
            f"| {run.config['trainer']['seed']} | {run.minutes:.1f} | {best['epoch']} | "
            f"{percent(best['validation_mean_iou'])} | **{100 * test['mean_iou']:.2f}** | "
            f"{percent(test['pixel_accuracy'])} | {percent(test.get('boundary_iou'))} |"
        )
    scores = [100 * run.test["mean_iou"] for run in runs]
    if len(scores) > 1:
        mean, spread = statistics.mean(scores), statistics.stdev(scores)
        span = f"from {min(scores):.2f} to {max(scores):.2f}"
        lines += ["", f"Test mIoU over {len(scores)} seeds: mean {mean:.2f}, standard deviation {spread:.2f}, {span}."]
    head = " | ".join(f"epoch {e}" for e in epochs)
    lines += ["", f"| validation mIoU %, seed | {head} |", "|--:|" + "--:|" * len(epochs)]
    for run in runs:
        values = " | ".join(percent(run.rows[e - 1]["validation_mean_iou"]) for e in epochs)
        lines.append(f"| {run.config['trainer']['seed']} | {values} |")
    names = [c["name"] for c in first.config["output_features"][0]["preprocessing"]["classes"]]
    seeds = " | ".join(f"seed {run.config['trainer']['seed']}" for run in runs)
    lines += ["", f"| test IoU % | {seeds} |", "|---|" + "--:|" * len(runs)]
    for name in names:
        values = " | ".join(percent(run.test["per_class_stats"][name]["iou"]) for run in runs)
        lines.append(f"| {name} | {values} |")
    return [*lines, ""]


def main() -> None:
    """Read the runs and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a Markdown file; a JSON file beside it")
    parser.add_argument("--title", default="CamVid")
    arguments = parser.parse_args()
    runs = [read(folder) for folder in arguments.runs]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(recipe(run), []).append(run)
    machine = runs[0].about["machine"]
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items() if k in ("segdeploy", "torch", "timm"))
    machine_words = f"{machine['cpu']}, {machine['cores']} cores, {machine['os'].split('-')[0]}"
    lines = [
        f"# {arguments.title}",
        "",
        f"{machine_words}, Python {machine['python']}, {packages}. {HOW}",
        "",
    ]
    for number, group in enumerate(groups.values(), 1):
        lines += group_text(group, number)
    write_text(arguments.output, "\n".join(lines))
    kept = [
        {
            "name": run.name,
            "config": run.config | {"data": None},
            "about": {k: v for k, v in run.about.items() if k != "tables"},  # paths of this machine
            "epochs": run.rows,
            "best": run.best,
        }
        for run in runs
    ]
    write_json(arguments.output.with_suffix(".json"), kept)


if __name__ == "__main__":
    main()
