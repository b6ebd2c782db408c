"""Ludwig's commands, word by word, and what they must not mean."""

import csv
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from segdeploy.cli import main


@pytest.fixture
def call(capsys):
    """A command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        levels = {logger: logger.level for logger in (logging.getLogger(), logging.getLogger("segdeploy"))}
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words)])
        for logger, level in levels.items():
            logger.setLevel(level)
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def files(tiny_config, tmp_path):
    """A configuration of one epoch."""
    (tmp_path / "config.yaml").write_text(tiny_config.replace("epochs: 8", "epochs: 1"))
    return tmp_path


def weights(run):
    return load_file(run / "model" / "model_weights.safetensors")


def test_training_as_ludwig_spells_it(files, tiny_table, call, caplog):
    words = ["train", "--config", files / "config.yaml", "--dataset", tiny_table, "--data_format", "csv"]
    names = ["--output_directory", files / "out", "--experiment_name", "pets", "--model_name", "unet"]
    more = ["--random_seed", "7", "--gpus", "-1", "--backend", "local", "--logging_level", "error"]
    code, said, _ = call(*words, *names, *more, "--skip_save_processed_input", "--skip_save_log")
    assert code == 0
    assert not caplog.messages  # --logging_level error
    run = files / "out" / "pets_unet"
    assert f"run: {run}" in said
    assert json.loads((run / "model" / "model_hyperparameters.json").read_text())["trainer"]["seed"] == 7
    assert not (run / "model" / "logs").exists()
    assert (run / "description.json").is_file()


def test_short_forms_and_parts(files, tiny_table, tiny_config, call):
    rows = tiny_table.read_text().splitlines()
    for part in ("train", "validation"):
        chosen = [row.rsplit(",", 1)[0] for row in rows[1:] if row.endswith(f",{part}")]
        (tiny_table.parent / f"{part}_set.csv").write_text("\n".join(["image,mask", *chosen]) + "\n")
    text = tiny_config.replace("epochs: 8", "epochs: 1")
    tables = [tiny_table.parent / f"{part}_set.csv" for part in ("train", "validation")]
    words = ["train", "-cs", text, "--training_set", tables[0], "--validation_set", tables[1], "-od", files / "out"]
    code, said, _ = call(*words, "-rs", "3", "-g", "-1", "-b", "local", "-l", "error", "-sstd", "-ssts", "-ssp", "-ssm")
    assert code == 0
    assert "test mean IoU" not in said
    run = files / "out" / "experiment_run"
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and "logs" not in p.parts}
    assert names == {"model_card.md", "splits/training.csv", "splits/validation.csv", "splits/test.csv"}
    assert "now:" not in said  # there is no model to export


def test_start_from_a_models_weights(files, tiny_run, tiny_table, call):
    """Without an epoch's change to speak of, the weights are those of the other model; so is the configuration."""
    still = ["--set", "trainer.epochs=1", "--set", "trainer.learning_rate=1e-12"]
    words = ["train", "-mlp", tiny_run / "model", "--dataset", tiny_table, *still]
    assert call(*words, "-od", files / "out")[0] == 0
    ours, theirs = weights(files / "out" / "experiment_run"), weights(tiny_run)
    learnt = [n for n in ours if n.endswith("weight")]
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-6) for n in learnt)
    assert call(*words, "-c", files / "config.yaml", "--model_load_path", files / "none")[0] == 2


def test_resume(files, tiny_run, call):
    code, said, _ = call("train", "--model_resume_path", tiny_run / "model")
    assert code == 0
    table = tiny_run / "splits" / "validation.csv"
    assert said.endswith(f"run: {tiny_run}\nnow: segdeploy export {tiny_run} --verify {table}\n")
    code, _, said = call("train", "-mrp", tiny_run, "-rs", "3")
    assert code == 2
    assert "leave out -c and --set" in said


def test_evaluate(tiny_run, tiny_table, files, call, monkeypatch):
    monkeypatch.chdir(files)
    words = ["evaluate", "--dataset", tiny_table, "--model_path", tiny_run / "model", "--split", "test"]
    code, said, _ = call(*words, "--batch_size", "4", "--output_directory", files / "a", "--skip_save_predictions")
    assert code == 0
    assert "mean" in said
    code, _, _ = call("evaluate", "-m", tiny_run, "-s", "test", "-bs", "2", "-od", files / "b", "--backend", "local")
    assert code == 0
    found = [json.loads((files / n / "test_statistics.json").read_text()) for n in "ab"]
    assert found[0]["mask"] == found[1]["mask"]
    assert found[0]["mask"]["loss"] > 0
    kept = json.loads((tiny_run / "training_statistics.json").read_text())["test"]["mask"]
    assert found[0]["mask"]["mean_iou"] == pytest.approx(kept["mean_iou"][0])
    before = sorted(tiny_run.iterdir())
    assert call("evaluate", tiny_run, "--split", "validation", "--skip_save_eval_stats")[0] == 0
    assert sorted(tiny_run.iterdir()) == before
    assert sorted(p.name for p in files.iterdir()) == ["a", "b", "config.yaml"]


def test_predict_a_table(tiny_run, tiny_table, files, call):
    code, said, _ = call("predict", "--dataset", tiny_table, "--model_path", tiny_run, "-od", files / "masks", "-bs", 9)
    assert code == 0
    assert "20 mask(s)" in said
    with (files / "masks" / "mask_predictions.csv").open(newline="") as handle:
        listed = {row["image"]: row["mask_predictions"] for row in csv.DictReader(handle)}
    images = sorted((tiny_table.parent / "images").iterdir())
    assert sorted(listed) == [str(i.resolve()) for i in images]
    assert call("predict", "-m", tiny_run, images[0], "-o", files / "one")[0] == 0  # our way, with -m
    ours, theirs = (
        Image.open(p)
        for p in (files / "one" / f"{images[0].stem}.png", files / "masks" / listed[str(images[0].resolve())])
    )
    assert (np.asarray(ours) == np.asarray(theirs)).all()
    assert call("predict", "-m", tiny_run, "-s", "test", "-o", files / "part")[0] == 0
    parts = [row.rsplit(",", 1)[1] for row in tiny_table.read_text().splitlines()[1:]]
    assert len(list((files / "part").glob("*.png"))) == parts.count("test")


def test_same_names_in_two_folders_of_a_table(tiny_run, tiny_table, files, call):
    first = next((tiny_table.parent / "images").iterdir())
    for name in "ab":
        (files / name).mkdir()
        Image.open(first).save(files / name / "x.png")
    (files / "t.csv").write_text("image\na/x.png\nb/x.png\n")
    assert call("predict", "-m", tiny_run, "--dataset", files / "t.csv", "-o", files / "masks")[0] == 0
    assert sorted(p.relative_to(files).as_posix() for p in (files / "masks").rglob("*.png")) == [
        "masks/a/x.png", "masks/b/x.png"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "file"),
    [("safetensors", "model_weights.safetensors"), ("torch_export", "model.pt2"), ("onnx", "bundle.json")],
)
def test_export_model(tiny_run, files, call, format_, file):
    assert call("export_model", "-m", tiny_run / "model", "-o", files / "made", "-f", format_)[0] == 0
    assert (files / "made" / file).is_file()


def test_model_folder_by_itself_is_enough(tiny_run, tiny_table, files, call):
    import shutil

    model = shutil.copytree(tiny_run / "model", files / "elsewhere")
    shutil.rmtree(model / "training_checkpoints")
    assert call("evaluate", model, "--dataset", tiny_table, "-o", files)[0] == 0
    assert call("predict", model, tiny_table.parent / "images", "-o", files / "masks")[0] == 0
    assert call("export", model, "-o", files / "bundle", "--verify", tiny_table)[0] == 0
    code, _, said = call("evaluate", model, "--split", "test")
    assert code == 2
    assert "no test part of its own" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "-c", "c", "--dataset", "t.csv", "--backend", "ray"], "'ray' is not 'local'"),
        (["evaluate", "RUN", "--dataset", "t.csv", "--backend", "ray"], "backend: expected local or one of"),
        (["evaluate", "RUN"], "expected a dataset, or a split"),
        (["evaluate"], "Missing argument 'MODEL'"),
        (["evaluate", "RUN", "-m", "RUN", "--split", "test"], "MODEL is given twice"),
        (["evaluate", "RUN", "--dataset", "t.csv", "--data_format", "parquet"], "data_format: expected auto or csv"),
        (["predict", "-m", "RUN"], "expected INPUTS, --dataset or --split"),
        (["predict", "RUN", "x.png", "--dataset", "t.csv"], "expected either INPUTS or a table"),
        (
            ["train", "-cs", "a: 1", "-c", "c", "--dataset", "t.csv"],
            "expected -c CONFIG or --config-str YAML, got both",
        ),
        (["train", "-cs", "trianer: 1", "--dataset", "t.csv"], "--config-str:1: trianer: unknown key"),
        (["train", "--dataset", "t.csv", "--learning_rate", "1"], "No such option"),
        (["export_model", "-m", "RUN", "-f", "savedmodel"], "'savedmodel' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_change_the_result_is_refused(tiny_run, files, call, monkeypatch, words, said):
    monkeypatch.chdir(files)
    code, _, error = call(*[tiny_run if w == "RUN" else w for w in words])
    assert code == 2
    assert said in error
    assert [p.name for p in files.iterdir()] == ["config.yaml"]


def test_help_shows_our_spelling_alone(call):
    for command in ("train", "evaluate", "predict", "export"):
        _, said, _ = call(command, "--help")
        options = said.partition("Options:")[2]  # what is above may call python -m
        shown = {word.rstrip(",") for word in options.split() if word.startswith("-")}
        assert "--output" in shown
        assert not shown & {"-od", "--output-directory", "-g", "--gpus", "-m", "--model-path", "-l", "--data-format"}
        assert not [word for word in shown if "_" in word or "skip-save" in word]
    assert "export-model" not in call("--help")[1]


def test_module_runs_as_a_program(tiny_run, tmp_path):
    words = ["evaluate", "--model_path", tiny_run / "model", "--split", "test", "--output_directory", tmp_path]
    done = subprocess.run([sys.executable, "-m", "segdeploy", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 0
    assert (tmp_path / "test_statistics.json").is_file()
