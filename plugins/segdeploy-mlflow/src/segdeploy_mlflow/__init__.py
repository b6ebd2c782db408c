"""MLflow as a tracker of segdeploy."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from segdeploy.plugin import Tracker, TrackerPlugin, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mlflow import MlflowClient

ID_FILE = "mlflow.json"
"""In the run folder: the MLflow run that a resumed training goes on with."""
_FILES = (
    "model_card.md",
    "training.html",
    "best_epoch.json",
    "description.json",
    "model/model_hyperparameters.json",
)
_LONGEST = 500
"""Characters of a parameter's value; what is longer is cut off. The configuration's file is whole."""


class MlflowTracker(Tracker):
    """One training as one MLflow run."""

    def __init__(self, client: MlflowClient, run: Path, run_id: str) -> None:
        self._client, self._run, self._id = client, run, run_id

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One value per epoch of each of its numbers."""
        self._log(dict(numbers(row)), row["epoch"])

    def close(self, *, finished: bool) -> None:
        """The test part's scores and the run's files, and how it ended."""
        if finished:
            best = self._run / "best_epoch.json"
            found = json.loads(best.read_text("utf-8")) if best.is_file() else {}
            scores = {f"test_{key}": v for key, v in found.get("test", {}).items() if isinstance(v, float)}
            self._log(scores, found.get("epoch", 0))
            for name in _FILES:
                if (self._run / name).is_file():
                    self._client.log_artifact(self._id, str(self._run / name))
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [Metric(plain(key), value, now, step) for key, value in metrics.items()]
        self._client.log_batch(self._id, metrics=found)


def numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The known numbers of an epoch by name; those of classes as `validation_class_iou/NAME`."""
    for key, value in row.items():
        for name, one in value.items() if isinstance(value, dict) else [("", value)]:
            if one is not None and key != "epoch":
                yield (f"{key}/{name}" if name else key), float(one)


def plain(name: str) -> str:
    """A name as MLflow takes it: letters, digits, _ - . / and spaces; other characters become _."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)[:250]


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a configuration by their paths, as `segdeploy train --set` writes them."""

    def walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(f"{path}.{key}" if path else str(key), inner)
        else:
            yield plain(path), (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]

    features = {f"{key}_feature": config[f"{key}_features"][0] for key in ("input", "output")}
    rest = {key: value for key, value in config.items() if not key.endswith("_features")}
    return dict(walk("", features | rest))


def _open(run: Path, config: Mapping[str, Any]) -> MlflowTracker:
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient()
    known = run / ID_FILE
    if known.is_file():
        run_id: str = json.loads(known.read_text("utf-8"))["run_id"]
        client.update_run(run_id, status="RUNNING")
        return MlflowTracker(client, run, run_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "segdeploy")
    experiment = client.get_experiment_by_name(name)
    where = experiment.experiment_id if experiment is not None else client.create_experiment(name)
    run_id = client.create_run(where, run_name=run.resolve().name).info.run_id
    chosen = [Param(key, value) for key, value in parameters(config).items()]
    for start in range(0, len(chosen), 100):  # as many as a server takes at once
        client.log_batch(run_id, params=chosen[start : start + 100])
    known.write_text(json.dumps({"run_id": run_id}) + "\n", "utf-8")
    return MlflowTracker(client, run, run_id)


@hookimpl
def segdeploy_register_trackers(register: Callable[[TrackerPlugin], None]) -> None:
    """Register the tracker."""
    register(TrackerPlugin(name="mlflow", summary="MLflow: parameters, numbers of each epoch, files", open=_open))
