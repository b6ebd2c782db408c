"""What lies where in a run folder: Ludwig's layout, for the command line and the Python API alike.

RUN/
  description.json            data, versions, machine; of an imported model where it comes from
  training_statistics.json    one value per epoch for each part, feature and metric
  training.html               the page of the run: curves, classes, confusion matrix, pictures, settings
  metrics.jsonl               one line per epoch, with speed, learning rate and the IoU of each class
  best_epoch.json             all scores of the best weights;  best_examples.json  pictures of validation images
  splits/                     training.csv, validation.csv, test.csv: which sample was in which part
  model_card.md               what the model is, how good, how to use it
  profile.json                where the time of training went
  diverged/                   the batch that the loss was no number on, and the weights before it, where that happened
  test_statistics.json        what the last `segdeploy evaluate` or `SegModel.experiment` found
  model/                      all that predicting, evaluating and exporting need; may be copied by itself
    model.json                how to rebuild the model (ModelSpec)
    model_hyperparameters.json  the configuration with all defaults filled in
    training_set_metadata.json  classes, their pixels, image sizes
    model_weights.safetensors   the weights with the best validation mean IoU
    training_progress.json      how far training is, for people and tools
    training_checkpoints/latest.safetensors  the state that --resume goes on from
    logs/                     TensorBoard
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODEL_FOLDER = "model"
SPEC_FILE = "model.json"
CONFIG_FILE = "model_hyperparameters.json"
METADATA_FILE = "training_set_metadata.json"
WEIGHTS_FILE = "model_weights.safetensors"
PROGRESS_FILE = "training_progress.json"
LATEST_FILE = "training_checkpoints/latest.safetensors"
LOGS_FOLDER = "logs"

DESCRIPTION_FILE = "description.json"
STATISTICS_FILE = "training_statistics.json"
TEST_STATISTICS_FILE = "test_statistics.json"
METRICS_FILE = "metrics.jsonl"
BEST_FILE = "best_epoch.json"
EXAMPLES_FILE = "best_examples.json"
PAGE_FILE = "training.html"
CARD_FILE = "model_card.md"
SPLITS_FOLDER = "splits"
PROFILE_FILE = "profile.json"
DIVERGED_FOLDER = "diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """What a training does not write: Ludwig's `skip_save_*`, and the pictures.

    `description`: description.json; a run that is resumed without it cannot tell whether its data are still the same.
    `statistics`: training_statistics.json, metrics.jsonl, best_epoch.json and training.html.
    `pictures`: best_examples.json, so that training.html shows no image of the data.
    `progress`: training_progress.json and the checkpoint; such a run cannot be resumed. `log`: TensorBoard's files.
    """

    description: bool = False
    statistics: bool = False
    progress: bool = False
    log: bool = False
    pictures: bool = False


def find_model(path: Path) -> Path | None:
    """The folder with model.json, from RUN or RUN/model; None where `path` is neither."""
    return next((f for f in (path, path / MODEL_FOLDER) if (f / SPEC_FILE).is_file()), None)


def find_run(path: Path) -> Path | None:
    """The run folder, from RUN or RUN/model; None where `path` is neither, or a model folder copied by itself.

    A training's run has splits, an imported one its description alone.
    """
    above = [path.resolve().parent] if path.resolve().name == MODEL_FOLDER else []
    marked = (run for run in (path, *above) if (run / SPLITS_FOLDER).is_dir() or (run / DESCRIPTION_FILE).is_file())
    return next(marked, None)


def runs_inside(path: Path) -> str:
    """For an error about `path`: the runs that lie directly in it, or that nothing is there; else empty."""
    if not path.exists():
        return "; there is nothing at this path"
    if not path.is_dir() or find_model(path):
        return ""
    found = sorted(str(child) for child in path.iterdir() if find_model(child))
    if not found:
        return ""
    return f"; it holds runs: did you mean {' or '.join(found[:3])}{' or another' if len(found) > 3 else ''}?"


def part_table(run: Path, part: str) -> Path:
    """The table of one part of a run: training, validation or test."""
    return run / SPLITS_FOLDER / f"{part}.csv"
