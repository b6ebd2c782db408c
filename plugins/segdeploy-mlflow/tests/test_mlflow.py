"""A training with the tracker, against MLflow itself and a store in a folder."""

import json
import shutil

import pytest

mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install mlflow-skinny")

from segdeploy.config import parse_config  # noqa: E402
from segdeploy.data.demo import CLASS_NAMES, generate  # noqa: E402
from segdeploy.data.table import Tables  # noqa: E402
from segdeploy.errors import SegdeployError  # noqa: E402
from segdeploy.train.loop import resume, train  # noqa: E402

from segdeploy_mlflow import ID_FILE, numbers, parameters, plain  # noqa: E402

CONFIG = f"""
input_features:
  - name: image
    type: image
    preprocessing: {{height: 32, width: 64}}
    encoder: {{type: unet, base_channels: 8}}
output_features:
  - name: mask
    type: image
    preprocessing: {{classes: [{", ".join(CLASS_NAMES)}]}}
    decoder: {{type: unet}}
trainer: {{epochs: 2, batch_size: 4, trackers: [mlflow]}}
"""


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A store of the test's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return mlflow.MlflowClient()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data"), count=20, size=(32, 64))


@pytest.fixture
def run(client, table, tmp_path):
    return train(parse_config(CONFIG), Tables(dataset=table), tmp_path / "runs", name="first", device="cpu").run


def stored(client, run):
    return client.get_run(json.loads((run / ID_FILE).read_text())["run_id"])


def test_everything_is_there(client, run):
    found = stored(client, run)
    assert client.get_experiment(found.info.experiment_id).name == "segdeploy"
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params["trainer.batch_size"] == "4"
    assert found.data.params["input_feature.encoder.type"] == "unet"
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        for name, value in numbers(row):
            at = {m.step: m.value for m in client.get_metric_history(found.info.run_id, plain(name))}
            assert at[row["epoch"]] == pytest.approx(value)
    best = json.loads((run / "best_epoch.json").read_text())
    assert found.data.metrics["test_mean_iou"] == pytest.approx(best["test"]["mean_iou"])
    files = {f.path for f in client.list_artifacts(found.info.run_id)}
    assert files == {
        "model_card.md", "training.html", "best_epoch.json", "description.json", "model_hyperparameters.json"
    }  # fmt: skip


def test_resumed_run_goes_on_with_its_entry(client, table, tmp_path):
    class StopError(Exception):
        pass

    def stop(row):
        raise StopError

    with pytest.raises(StopError):
        train(parse_config(CONFIG), Tables(dataset=table), tmp_path, name="cut", device="cpu", on_epoch=stop)
    broken = stored(client, tmp_path / "cut")
    assert broken.info.status == "FAILED"
    resume(tmp_path / "cut", device="cpu")
    whole = stored(client, tmp_path / "cut")
    assert (whole.info.run_id, whole.info.status) == (broken.info.run_id, "FINISHED")
    steps = [m.step for m in client.get_metric_history(whole.info.run_id, "validation_mean_iou")]
    assert steps == [1, 2]


def test_experiment_may_be_named(client, table, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "streets")
    config = parse_config(CONFIG, overrides=["trainer.epochs=1"])
    one, two = (train(config, Tables(dataset=table), tmp_path, device="cpu").run for _ in range(2))
    where = {stored(client, run).info.experiment_id for run in (one, two)}
    assert where == {client.get_experiment_by_name("streets").experiment_id}


def test_no_server(table, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SegdeployError, match="tracker mlflow: cannot be opened: "):
        train(parse_config(CONFIG), Tables(dataset=table), tmp_path, device="cpu")


def test_nothing_is_sent_unless_it_is_asked_for(client, table, tmp_path):
    config = parse_config(CONFIG, overrides=["trainer.epochs=1", "trainer.trackers=[]"])
    run = train(config, Tables(dataset=table), tmp_path, device="cpu").run
    assert not (run / ID_FILE).exists()
    assert client.get_experiment_by_name("segdeploy") is None


def test_store_that_goes_away_stops_no_training(client, table, tmp_path, caplog):
    def lose(row):
        if row["epoch"] == 1:
            shutil.rmtree(tmp_path / "store")
            (tmp_path / "store").write_text("")

    done = train(parse_config(CONFIG), Tables(dataset=table), tmp_path, device="cpu", on_epoch=lose)
    assert len(done.history) == 2
    assert "tracker mlflow: " in caplog.text


def test_names_and_values():
    config = {
        "input_features": [{"name": "image", "augmentation": []}],
        "output_features": [{"name": "mask", "loss": {"class_weights": {"sky & sea": 0.5}}}],
        "data": None,
        "trainer": {"epochs": 3},
    }
    assert parameters(config) == {
        "input_feature.name": "image", "input_feature.augmentation": "[]", "output_feature.name": "mask",
        "output_feature.loss.class_weights.sky _ sea": "0.5", "data": "null", "trainer.epochs": "3",
    }  # fmt: skip
    row = {
        "epoch": 3,
        "training_loss": 0.5,
        "validation_loss": None,
        "validation_class_iou": {"sky": 0.25, "sea": None},
    }
    assert dict(numbers(row)) == {"training_loss": 0.5, "validation_class_iou/sky": 0.25}
    assert plain("Straße: rechts?") == "Stra_e_ rechts_"
