"""Training on a few generated pictures: what it leaves behind, and that a stopped run goes on as if it never had."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segdeploy.bundle import open_model
from segdeploy.checkpoint import load_weights
from segdeploy.config import parse_config
from segdeploy.data.demo import CLASS_NAMES, generate
from segdeploy.data.table import Tables, read_table
from segdeploy.errors import ConfigError, DataError, MissingPartError, ModelError, SegdeployError
from segdeploy.evaluate import evaluate
from segdeploy.model.segmenter import build
from segdeploy.run_folder import CONFIG_FILE, LATEST_FILE
from segdeploy.runtime.runner import open_runner
from segdeploy.train.loop import resume, train
from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.validate import evaluate_with_loss

CONFIG = f"""
input_features:
  - name: image
    type: image
    preprocessing: {{height: 64, width: 96}}
    augmentation:
      - {{type: random_horizontal_flip}}
      - {{type: random_scale, min: 0.8, max: 1.2}}
      - {{type: random_color}}
    encoder: {{type: timm, model_name: mobilenetv3_small_050, use_pretrained: false}}
output_features:
  - name: mask
    type: image
    preprocessing: {{classes: [{", ".join(CLASS_NAMES)}]}}
    decoder: {{type: fpn, num_channels: 16, merge_channels: 16}}
trainer: {{epochs: 3, batch_size: 4, learning_rate: 2e-3, ema_decay: 0.9}}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data"), count=20, size=(64, 96))


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    """A run of three epochs."""
    return train(parse_config(CONFIG), Tables(dataset=table), tmp_path_factory.mktemp("runs"), device="cpu")


def test_run_folder_holds_what_it_says(finished):
    run = finished.run
    assert {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and "logs" not in p.parts} == {
        "description.json", "training_statistics.json", "metrics.jsonl", "training.html", "model_card.md",
        "best_epoch.json", "best_examples.json", "profile.json",
        "splits/training.csv", "splits/validation.csv", "splits/test.csv",
        "model/model.json", "model/model_hyperparameters.json", "model/training_set_metadata.json",
        "model/model_weights.safetensors", "model/training_progress.json",
        "model/training_checkpoints/latest.safetensors",
    }  # fmt: skip
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == finished.history
    assert [r["epoch"] for r in rows] == [1, 2, 3]
    assert rows[-1]["step"] == 3 * (14 // 4)
    assert rows[-1]["training_loss"] < rows[0]["training_loss"]
    assert any((run / "model" / "logs").iterdir())


def test_training_stops_early(table, tmp_path):
    # A rate of practically nothing: the first epoch stays the best.
    words = ["trainer.epochs=6", "trainer.early_stop=2", "trainer.learning_rate=1e-12", "trainer.ema_decay=null"]
    words += ["encoder.trainable=false", "augmentation=[]"]
    text = CONFIG.replace("model_name: mobilenetv3_small_050", "model_name: resnet10t")
    done = train(parse_config(text, overrides=words), Tables(dataset=table), tmp_path, device="cpu")
    assert len(done.history) == done.best_epoch + 2 < 6


def test_best_weights_score_what_training_said(finished, table):
    bundle = open_model(finished.run)
    samples = [s for s in read_table(table) if s.part == "validation"]
    with open_runner(bundle, "torch") as runner:
        found = evaluate(runner, samples, bundle.spec).scores.mean_iou
    assert found == pytest.approx(finished.best_mean_iou, abs=1e-4)
    about = load_weights(finished.run / "model" / "model_weights.safetensors", build(bundle.spec))
    assert about["epoch"] == finished.best_epoch


def test_validation_loss_of_the_best_epoch_is_that_of_its_weights(finished, table):
    bundle = open_model(finished.run)
    samples = [s for s in read_table(table) if s.part == "validation"]
    with open_runner(bundle, "torch") as runner:
        found = evaluate_with_loss(runner, CrossEntropy(), samples, bundle.spec)
    said = finished.history[finished.best_epoch - 1]["validation_loss"]
    assert said == pytest.approx(found.loss, rel=1e-4)
    events = EventAccumulator(str(finished.model / "logs")).Reload()
    assert events.Scalars("validation_loss")[finished.best_epoch - 1].value == pytest.approx(said)


def test_second_run_gets_its_own_folder(finished, table, caplog):
    caplog.set_level("INFO")
    again = train(
        parse_config(CONFIG, overrides=["trainer.epochs=1"]), Tables(dataset=table), finished.run.parent, device="cpu"
    )
    assert again.run.name == "experiment_run_0"
    assert f"{finished.run} is taken: this run is {again.run}" in caplog.text


def test_resumed_run_equals_uninterrupted_one(finished, table, tmp_path):
    class StopError(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        train(parse_config(CONFIG), Tables(dataset=table), tmp_path, device="cpu", on_epoch=stop)
    result = resume(tmp_path / "experiment_run", device="cpu")
    ours, theirs = (load_file(r.run / "model" / LATEST_FILE) for r in (result, finished))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    strip = [{k: v for k, v in r.items() if "second" not in k} for r in result.history]
    assert strip == [{k: v for k, v in r.items() if "second" not in k} for r in finished.history]


def test_killed_run_goes_on(table, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("epochs: 3", "epochs: 60"))
    words = ["train", "-c", config, "--dataset", table, "-o", tmp_path, "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "segdeploy", *map(str, words)], stdout=subprocess.DEVNULL)
    metrics = tmp_path / "experiment_run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = tmp_path / "experiment_run"
    done = json.loads((run / "model" / CONFIG_FILE).read_text())
    done["trainer"]["epochs"] = len(metrics.read_text().splitlines()) + 1
    (run / "model" / CONFIG_FILE).write_text(json.dumps(done))
    rows = resume(run, device="cpu").history
    assert [r["epoch"] for r in rows] == list(range(1, done["trainer"]["epochs"] + 1))
    assert open_model(run).find("weights") is not None


def test_in_memory_table_trains_and_resumes_from_the_runs_own_split(table, tmp_path, caplog):
    caplog.set_level("INFO", logger="segdeploy")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([vars_of(s) for s in read_table(table)])
    config = parse_config(
        CONFIG + "preprocessing: {split: {type: stratify, column: scene, probabilities: [0.5, 0.25, 0.25]}}\n",
        overrides=["trainer.epochs=1", "preprocessing.cache.mode=disk", f"preprocessing.cache.directory={tmp_path}"],
    )
    run = train(config, Tables(dataset=frame), tmp_path, device="cpu").run
    assert f"cache: 10 samples, 0.2 MB, memory-mapped in {tmp_path}" in caplog.messages
    said = "learning rate: cosine, once down over all 2 steps; Ludwig restarts every t_0 steps"
    assert caplog.messages.count(said) == 1
    about = json.loads((run / "description.json").read_text())
    assert about["tables"]["dataset"] == "table in memory (DataFrame)"
    split = about["split"]
    assert (split["type"], split["column"], split["seed"]) == ("stratify", "scene", config.trainer.seed)
    assert split["samples"] == {"training": 10, "validation": 5, "test": 5}
    for part, digest in split["sha256"].items():
        assert digest == hashlib.sha256((run / "splits" / f"{part}.csv").read_bytes()).hexdigest()
    done = json.loads((run / "model" / CONFIG_FILE).read_text())
    done["trainer"]["epochs"] = 2
    (run / "model" / CONFIG_FILE).write_text(json.dumps(done))
    assert [row["epoch"] for row in resume(run, device="cpu").history] == [1, 2]


def vars_of(sample):
    return {"image": sample.image, "mask": str(sample.mask), "scene": int(sample.image.stem) % 2}


def test_resume_needs_no_table_and_sees_changed_data(table, tmp_path):
    folder = shutil.copytree(table.parent, tmp_path / "data")
    config = parse_config(CONFIG, overrides=["trainer.epochs=1"])
    run = train(config, Tables(dataset=folder / table.name), tmp_path, device="cpu").run
    (folder / table.name).unlink()
    assert len(resume(run, device="cpu").history) == 1
    first = read_table(run / "splits" / "training.csv")[0].image
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(first)
    with pytest.raises(ModelError, match="training data are not those"):
        resume(run, device="cpu")


@pytest.mark.parametrize("part", ["validation", "test"])
def test_resume_sees_other_masks_in_any_part(part, table, tmp_path):
    """Other validation masks would choose another epoch as the best, other test masks score it differently."""
    folder = shutil.copytree(table.parent, tmp_path / "data")
    config = parse_config(CONFIG, overrides=["trainer.epochs=1"])
    run = train(config, Tables(dataset=folder / table.name), tmp_path, device="cpu").run
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(read_table(run / "splits" / f"{part}.csv")[0].mask)
    with pytest.raises(ModelError, match=f"the {part} data are not those"):
        resume(run, device="cpu")


def test_run_without_description_goes_on_and_says_what_it_cannot_tell(finished, tmp_path, caplog):
    run = shutil.copytree(finished.run, tmp_path / "run")
    (run / "description.json").unlink()
    with caplog.at_level("WARNING", logger="segdeploy"):
        assert len(resume(run, device="cpu").history) == 3
    assert "has no description.json, so nothing tells whether the data are still the same" in caplog.text


def test_weights_of_zero_are_refused_before_anything_is_written(table, tmp_path):
    config = parse_config(CONFIG, overrides=[f"loss.class_weights=[{', '.join(['0'] * 7)}]"])
    with pytest.raises(ConfigError, match="nothing to learn"):
        train(config, Tables(dataset=table), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_resume_refuses_other_data(finished, tmp_path):
    other = generate(tmp_path, count=20, size=(64, 96), seed=5)
    with pytest.raises(ModelError, match="training data are not those"):
        resume(finished.run, tables=Tables(dataset=other), device="cpu")
    with pytest.raises(ModelError, match=r"expected a run folder with model/training_checkpoints/latest\.safetensors"):
        resume(tmp_path, device="cpu")


def test_all_broken_files_are_named_and_nothing_is_written(table, tmp_path):
    folder = tmp_path / "data"
    table = generate(folder, count=20, size=(64, 96))
    images = sorted((folder / "images").iterdir())
    images[1].write_bytes(images[1].read_bytes()[:200])
    images[5].unlink()
    mask = sorted((folder / "masks").iterdir())[7]
    Image.fromarray(np.full((64, 96), 77, np.uint8)).save(mask)
    with pytest.raises(DataError) as caught:
        train(parse_config(CONFIG), Tables(dataset=table), tmp_path / "runs", device="cpu")
    said = str(caught.value)
    assert all(str(p) in said for p in (images[1], images[5], mask))
    assert "77" in said
    assert not (tmp_path / "runs").exists()


def test_loss_that_is_no_number_stops_the_run(table, tmp_path):
    config = parse_config(
        CONFIG, overrides=["trainer.learning_rate=1e30", "trainer.gradient_clipping.clipglobalnorm=null"]
    )
    with pytest.raises(SegdeployError, match=r"lower trainer\.learning_rate"):
        train(config, Tables(dataset=table), tmp_path, device="cpu")


def test_class_of_weight_zero_is_ignored(table, tmp_path):
    """Masks of that class alone give 0 / 0 in the mean; the run must go on as if they were unlabelled."""
    weights = f"loss.class_weights=[{', '.join(['0'] * 6)}, 1]"
    config = parse_config(CONFIG, overrides=[weights, "trainer.epochs=2", "trainer.batch_size=1"])
    result = train(config, Tables(dataset=table), tmp_path, device="cpu")
    assert all(torch.isfinite(t).all() for t in load_file(result.run / "model" / LATEST_FILE).values())


def test_validation_without_a_label_is_refused(tmp_path):
    table = generate(tmp_path / "data", count=20, size=(64, 96))
    for sample in read_table(table):
        if sample.part == "validation":
            Image.fromarray(np.full((64, 96), 255, np.uint8)).save(sample.mask)
    with pytest.raises(DataError, match="like all validation masks, it holds no labelled pixel"):
        train(parse_config(CONFIG), Tables(dataset=table), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_parts_can_be_scored_by_themselves(finished, table):
    written = {p: read_table(finished.run / "splits" / f"{p}.csv") for p in ("training", "validation", "test")}
    for part, samples in written.items():
        assert [s.image.name for s in samples] == [s.image.name for s in read_table(table) if s.part == part]
        assert all(s.image.is_file() for s in samples)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nest_tiny", "the model cannot take 96x64 images; choose another size: Input height"),
        ("maxvit_nano_rw_256", r"cannot take 96x64 images: .* multiples of 256; the next sizes that work: 256x256$"),
    ],
)
def test_size_that_the_network_cannot_take_is_refused_before_anything_is_written(model, said, table, tmp_path):
    config = parse_config(CONFIG, overrides=[f"encoder.model_name={model}"])
    with pytest.raises(ConfigError, match=said):
        train(config, Tables(dataset=table), tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_unknown_device_is_one_line(device, table, tmp_path):
    with pytest.raises(MissingPartError, match="device"):
        train(parse_config(CONFIG), Tables(dataset=table), tmp_path / "runs", device=device)
    assert not (tmp_path / "runs").exists()


def test_mistake_in_a_runs_own_configuration_is_one_line(finished, tmp_path):
    run = shutil.copytree(finished.run, tmp_path / "run")
    text = (run / "model" / CONFIG_FILE).read_text()
    (run / "model" / CONFIG_FILE).write_text(text.replace('"epochs": 3', '"epochs": 0'))
    with pytest.raises(ConfigError, match=r"model_hyperparameters\.json: trainer\.epochs"):
        resume(run, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_mixed_precision_resumes_from_a_cpu_run(finished, tmp_path):
    run = shutil.copytree(finished.run, tmp_path / "run")
    content = json.loads((run / "model" / CONFIG_FILE).read_text())
    content["trainer"] |= {"epochs": 5, "use_mixed_precision": True}
    (run / "model" / CONFIG_FILE).write_text(json.dumps(content))
    rows = resume(run, device="cuda").history
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(r["training_loss"]) for r in rows)


def test_frozen_encoder_keeps_weights_and_statistics(table, tmp_path):
    config = parse_config(CONFIG, overrides=["encoder.trainable=false", "trainer.epochs=1", "trainer.ema_decay=null"])
    torch.manual_seed(config.trainer.seed)
    run = train(config, Tables(dataset=table), tmp_path, device="cpu").run
    trained = load_file(run / "model" / "model_weights.safetensors")
    torch.manual_seed(config.trainer.seed)
    fresh = build(open_model(run).spec).state_dict()
    encoder = [n for n in trained if n.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(trained[n], fresh[n]) for n in encoder)
    assert any(not torch.equal(trained[n], fresh[n]) for n in trained if n.startswith("decoder."))


def test_frozen_transformer_learns_its_pyramid(table, tmp_path):
    text = CONFIG.replace("{type: timm, model_name: mobilenetv3_small_050,", "{type: vit, model_name: test_vit,")
    assert text != CONFIG
    config = parse_config(text, overrides=["encoder.trainable=false", "trainer.epochs=1", "trainer.ema_decay=null"])
    torch.manual_seed(config.trainer.seed)
    run = train(config, Tables(dataset=table), tmp_path, device="cpu").run
    trained = load_file(run / "model" / "model_weights.safetensors")
    torch.manual_seed(config.trainer.seed)
    fresh = build(open_model(run).spec).state_dict()
    assert all(torch.equal(trained[n], fresh[n]) for n in trained if n.startswith("encoder.body."))
    changed = [n for n in trained if n.startswith("encoder.pyramid.") and not torch.equal(trained[n], fresh[n])]
    assert len(changed) > 10


def test_ludwigs_split_by_shares_reaches_training(table, tmp_path):
    plain = tmp_path / "plain.csv"
    rows = table.read_text().splitlines()
    plain.write_text(
        "\n".join(
            ",".join(str(Path(table.parent) / c) if c.endswith(".png") else c for c in r.split(",")[:2]) for r in rows
        )
    )
    config = parse_config(
        CONFIG + "preprocessing: {split: {type: random, probabilities: [0.5, 0.25, 0.25]}}\n",
        overrides=["trainer.epochs=1"],
    )
    run = train(config, Tables(dataset=plain), tmp_path, device="cpu").run
    data = json.loads((run / "description.json").read_text())["data"]
    assert [data[p]["samples"] for p in ("training", "validation", "test")] == [10, 5, 5]
