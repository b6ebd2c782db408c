"""What a training leaves behind besides its weights."""

import json
import logging
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segdeploy.bundle import open_model
from segdeploy.config import parse_config
from segdeploy.data.table import Tables, read_table
from segdeploy.errors import MissingPartError, SegdeployError
from segdeploy.evaluate import evaluate
from segdeploy.metrics import Scores
from segdeploy.run_folder import Skip, part_table
from segdeploy.runtime.runner import open_runner
from segdeploy.train.examples import Extremes
from segdeploy.train.loop import resume, train
from segdeploy.train.record import Record

TRACKER = """
import json
from segdeploy.plugin import Tracker, TrackerPlugin, hookimpl

class Heard(Tracker):
    def __init__(self, run, config):
        if config["trainer"]["seed"] == 13:
            raise RuntimeError("no server")
        self.file, self.seed = run / "heard.txt", config["trainer"]["seed"]
        self.say("open", config["trainer"]["epochs"])

    def say(self, *words):
        with self.file.open("a") as file:
            file.write(json.dumps(words) + "\\n")

    def epoch(self, row):
        if self.seed == 14:
            raise RuntimeError("server is gone")
        self.say("epoch", row)

    def close(self, *, finished):
        self.say("close", finished, (self.file.parent / "model_card.md").exists())

@hookimpl
def segdeploy_register_trackers(register):
    register(TrackerPlugin(name="heard", summary="a file", open=Heard))
"""


@pytest.fixture
def tracked(install, tiny_config, tiny_table, tmp_path):
    """A function of changes that trains for two epochs with the tracker above; gives the run and what was heard."""
    install("hearing", "tracker.heard", TRACKER)
    words = ["trainer.epochs=2", "trainer.trackers=[heard]"]

    def trained(*more, **options):
        config = parse_config(tiny_config, overrides=[*words, *more])
        run = train(config, Tables(dataset=tiny_table), tmp_path / "runs", device="cpu", **options).run
        return run, [json.loads(line) for line in (run / "heard.txt").read_text().splitlines()]

    return trained


def test_best_epoch_is_what_evaluating_says(tiny_run):
    best = json.loads((tiny_run / "best_epoch.json").read_text())
    opened = open_model(tiny_run)
    with open_runner(opened, "torch") as runner:
        for part in ("validation", "test"):
            found = evaluate(runner, read_table(part_table(tiny_run, part), "image", "mask"), opened.spec)
            assert best[part]["confusion_matrix"] == found.scores.confusion.tolist()
            ious = [stats["iou"] for stats in best[part]["per_class_stats"].values()]
            np.testing.assert_allclose([np.nan if v is None else v for v in ious], found.scores.iou)
    rows = {row["epoch"]: row for row in map(json.loads, (tiny_run / "metrics.jsonl").read_text().splitlines())}
    row = rows[best["epoch"]]
    assert row["validation_mean_iou"] == max(r["validation_mean_iou"] for r in rows.values())
    each = {name: stats["iou"] for name, stats in best["validation"]["per_class_stats"].items()}
    assert row["validation_class_iou"].keys() == each.keys()
    known = [name for name, iou in each.items() if iou is not None]
    assert known
    assert [row["validation_class_iou"][n] for n in known] == pytest.approx([each[n] for n in known], abs=1e-6)
    assert all(row["validation_class_iou"][n] is None for n in each if n not in known)


def test_worse_epoch_leaves_the_best(tiny_run, tiny_config, tmp_path):
    spec = open_model(tiny_run).spec
    row = {"seconds": 1.0, "learning_rate": 0.1, "training_loss": 1.0, "validation_loss": None, "step": 1}
    row |= {"validation_pixel_accuracy": 0.5, "training_images_per_second": 2.0}
    shutil.copytree(tiny_run / "model", tmp_path / "model")
    with Record(tmp_path, tmp_path / "model", parse_config(tiny_config), spec, 0, Skip(log=True)) as record:
        for epoch, iou, best in ((1, 0.5, True), (2, 0.25, False)):
            confusion = np.diag(np.full(7, epoch))
            record.add(row | {"epoch": epoch, "validation_mean_iou": iou}, Scores(confusion), Extremes(), best=best)
    found = json.loads((tmp_path / "best_epoch.json").read_text())
    assert (found["epoch"], found["validation"]["confusion_matrix"][0][0]) == (1, 1)
    assert json.loads((tmp_path / "best_examples.json").read_text())["epoch"] == 1
    assert "Best validation mIoU 50.00" in (tmp_path / "training.html").read_text()


def test_tensorboard_has_every_number_of_every_epoch(tiny_run):
    board = EventAccumulator(str(tiny_run / "model" / "logs")).Reload()
    rows = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    tags = set(board.Tags()["scalars"])
    assert {"learning_rate", "training_images_per_second", "validation_class_iou/background"} <= tags
    for row in rows:
        flat = {**row, **{f"validation_class_iou/{n}": v for n, v in row["validation_class_iou"].items()}}
        for tag in tags:
            at = {event.step: event.value for event in board.Scalars(tag)}
            assert (row["epoch"] in at) == (flat[tag] is not None)
            if row["epoch"] in at:
                assert at[row["epoch"]] == pytest.approx(flat[tag], rel=1e-5)


def test_without_pictures(tiny_config, tiny_table, tmp_path):
    config = parse_config(tiny_config, overrides=["trainer.epochs=1"])
    run = train(config, Tables(dataset=tiny_table), tmp_path, device="cpu", skip=Skip(pictures=True)).run
    assert not (run / "best_examples.json").exists()
    assert "data:image/" not in (run / "training.html").read_text()


def test_examples_are_of_the_best_epoch(tiny_run):
    examples = json.loads((tiny_run / "best_examples.json").read_text())
    assert examples["epoch"] == json.loads((tiny_run / "best_epoch.json").read_text())["epoch"]
    names = {s.image.name for s in read_table(part_table(tiny_run, "validation"), "image", "mask")}
    shown = [p["name"] for end in ("worst", "best") for p in examples[end]]
    assert set(shown) <= names
    assert len(shown) == len(set(shown)) == min(6, len(names))


def test_best_epoch_survives_a_resume(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = {name: (run / name).read_bytes() for name in ("best_epoch.json", "best_examples.json", "metrics.jsonl")}
    resume(run, device="cpu")  # all epochs are done
    old, new = (json.loads(text) for text in (before.pop("best_epoch.json"), (run / "best_epoch.json").read_bytes()))
    assert old == new
    assert {name: (run / name).read_bytes() for name in before} == before


def test_tracker_hears_every_epoch(tracked):
    run, heard = tracked()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert heard == [["open", 2], *(["epoch", row] for row in rows), ["close", True, True]]


def test_tracker_hears_that_a_training_was_broken_off(tracked, tmp_path):
    class StopError(Exception):
        pass

    def stop(row):
        raise StopError

    with pytest.raises(StopError):
        tracked(on_epoch=stop)
    heard = (tmp_path / "runs" / "experiment_run" / "heard.txt").read_text().splitlines()
    assert json.loads(heard[-1]) == ["close", False, False]


def test_failing_tracker_stops_no_training(tracked, caplog):
    with caplog.at_level(logging.WARNING, logger="segdeploy"):
        run, heard = tracked("trainer.seed=14")
    assert heard == [["open", 2]]
    assert [r.getMessage() for r in caplog.records] == [
        "tracker heard: RuntimeError: server is gone; it is told nothing more of this training"
    ]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_tracker_that_cannot_be_opened_is_said_before_training(tracked, tmp_path):
    with pytest.raises(SegdeployError, match="tracker heard: cannot be opened: RuntimeError: no server; remove it"):
        tracked("trainer.seed=13")
    assert not (tmp_path / "runs" / "experiment_run" / "metrics.jsonl").exists()


def test_unknown_tracker_is_refused_before_anything_is_written(tiny_config, tiny_table, tmp_path):
    config = parse_config(tiny_config, overrides=["trainer.trackers=[ml_flow]"])
    with pytest.raises(MissingPartError, match="no tracker is named 'ml_flow'"):
        train(config, Tables(dataset=tiny_table), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
