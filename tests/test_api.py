"""The Python API, called as Ludwig's page and examples call it."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import segdeploy
from segdeploy import SegModel
from segdeploy.api import TrainingResults
from segdeploy.data.demo import generate
from segdeploy.data.images import read_image
from segdeploy.errors import ConfigError, DataError, ExportError, MissingPartError, ModelError
from segdeploy.files import sha256

EPOCHS = 2


@pytest.fixture(scope="module")
def config(tiny_config):
    """The tiny configuration as a dict, two epochs."""
    found = yaml.safe_load(tiny_config.replace("5e-3", "0.005"))
    found["trainer"]["epochs"] = EPOCHS
    return found


def columns(table, image="image", mask="mask", part=None):
    """A table as a dict of lists with absolute paths."""
    with table.open(newline="") as handle:
        rows = [r for r in csv.DictReader(handle) if part in (None, r["split"])]
    found = {image: [str(table.parent / r["image"]) for r in rows], mask: [str(table.parent / r["mask"]) for r in rows]}
    return found | {"split": [r["split"] for r in rows]}


@pytest.fixture(scope="module")
def trained(config, tiny_table, tmp_path_factory):
    """A model, trained, and what training returned; features whose names are not their columns."""
    named = json.loads(json.dumps(config))
    named["output_features"][0] |= {"name": "segments", "column": "mask"}
    model = SegModel(named, gpus=-1)
    return model, model.train(dataset=tiny_table, output_directory=tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def varied(tiny_run, tmp_path_factory):
    """A model folder whose network finds several classes in a picture: its last layer is drawn at random."""
    folder = shutil.copytree(tiny_run / "model", tmp_path_factory.mktemp("varied") / "model")
    weights = load_file(folder / "model_weights.safetensors")
    weights["head.weight"] = torch.randn(weights["head.weight"].shape, generator=torch.Generator().manual_seed(0))
    weights["head.bias"] = torch.zeros_like(weights["head.bias"])
    save_file(weights, folder / "model_weights.safetensors")
    return folder


def test_snippet_of_the_page(config, tiny_table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "segmentation_config.yaml").write_text(yaml.safe_dump(config))
    for name, part in (("pets_segmentation", None), ("pets_test", "test")):
        pd.DataFrame(columns(tiny_table, part=part)).to_csv(f"{name}.csv", index=False)
    code = """
from segdeploy import SegModel as LudwigModel

model = LudwigModel(config="segmentation_config.yaml", logging_level=1)
results = model.train(dataset="pets_segmentation.csv", output_directory="results")
eval_stats, predictions, output_dir = model.evaluate(
    dataset="pets_test.csv", collect_predictions=True, output_directory="eval_results"
)
print(eval_stats["mask"]["mean_iou"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # the library prints nothing
    assert 0 <= float(line) <= 1
    assert (tmp_path / "results" / "api_experiment_run" / "model" / "model_weights.safetensors").is_file()
    assert not (tmp_path / "eval_results").exists()  # nothing was to be saved


def test_camseq_example(config, tiny_table, tmp_path):
    """Ludwig's examples/semantic_segmentation/camseq.py: a DataFrame, features named after its columns."""
    renamed = json.loads(json.dumps(config))
    renamed["input_features"][0]["name"], renamed["output_features"][0]["name"] = "image_path", "mask_path"
    df = pd.DataFrame(columns(tiny_table, "image_path", "mask_path"))
    model = SegModel(renamed)
    (train_stats, _, output_directory) = model.train(
        dataset=df,
        experiment_name="simple_image_experiment",
        model_name="single_model",
        skip_save_processed_input=True,
        output_directory=tmp_path,
    )
    assert Path(output_directory).name == "simple_image_experiment_single_model"
    assert len(train_stats["validation"]["mask_path"]["mean_iou"]) == EPOCHS
    pred_out_df, _ = model.predict(df[0:1])
    (row,) = [row for _, row in pred_out_df.iterrows()]
    mask = torch.from_numpy(row["mask_path_predictions"])
    assert mask.dtype == torch.uint8
    with Image.open(df["image_path"][0]) as image:
        assert mask.shape == (3, image.height, image.width)


def test_training_results_in_ludwigs_shape(trained, tiny_table):
    _, results = trained
    assert isinstance(results, TrainingResults)
    stats, data, run = results
    assert (stats, data, run) == (results[0], results[1], results[2])
    assert stats.evaluation_frequency == (1.0, "epoch")
    assert stats["training"]["segments"].keys() == {"loss"}
    assert stats["training"]["combined"] == stats["training"]["segments"]
    for metric in ("loss", "mean_iou", "pixel_accuracy"):
        assert len(stats["validation"]["segments"][metric]) == EPOCHS
    assert stats["validation"]["combined"]["loss"] == stats["validation"]["segments"]["loss"]
    assert len(stats["test"]["segments"]["mean_iou"]) == 1
    assert json.loads((Path(run) / "training_statistics.json").read_text()) == stats
    parts = columns(tiny_table)["split"]
    assert [len(part) for part in data[:3]] == [parts.count(p) for p in ("train", "validation", "test")]
    classes = data.training_set_metadata["mask"]["classes"]
    masks = [np.asarray(Image.open(m)) for m in columns(tiny_table, part="train")["mask"]]
    assert [c["pixels"] for c in classes] == np.bincount(np.stack(masks).ravel(), minlength=256)[:7].tolist()
    assert json.loads((Path(run) / "model" / "training_set_metadata.json").read_text()) == data.training_set_metadata


def test_evaluation_goes_by_the_features_name(trained, tiny_table):
    model, results = trained
    stats, predictions, _ = model.evaluate(tiny_table, split="test", collect_predictions=True)
    assert stats["segments"]["mean_iou"] == pytest.approx(results.train_stats["test"]["segments"]["mean_iou"][0])
    assert stats["combined"]["loss"] == pytest.approx(results.train_stats["test"]["combined"]["loss"][0], rel=1e-4)
    assert "mask" not in stats
    # The scores again, by hand, from what was predicted.
    masks = [np.asarray(Image.open(m)) for m in columns(tiny_table, part="test")["mask"]]
    right = sum(int((ids == mask).sum()) for ids, mask in zip(predictions["segments_class_ids"], masks, strict=True))
    labelled = sum(int((mask != 255).sum()) for mask in masks)
    assert stats["segments"]["pixel_accuracy"] == pytest.approx(right / labelled)


def test_a_runs_own_parts_are_those_of_the_table(trained, tiny_table):
    model, _ = trained
    own, _, _ = model.evaluate(split="validation")
    named, _, _ = model.evaluate(dataset=tiny_table, split="validation")
    assert own["segments"] == named["segments"]
    everything, _, _ = model.evaluate(dataset=tiny_table)
    assert (own["images"], everything["images"]) == (3, 20)
    with pytest.raises(DataError, match="expected a dataset, or a split"):
        model.evaluate()
    with pytest.raises(DataError, match="split: expected one of full, training, validation, test, got 'tset'"):
        model.evaluate(split="tset")
    whole = columns(tiny_table)
    del whole["split"]
    with pytest.raises(DataError, match="no row of the dataset has 'test' in 'split'"):
        model.evaluate(dataset=whole, split="test")


def test_predictions_are_colours_and_ids_of_each_images_size(varied, tiny_table, tmp_path):
    model = SegModel.load(varied)
    image = columns(tiny_table)["image"][0]
    Image.open(image).resize((50, 40)).save(tmp_path / "small.png")
    table = {"image": [image, str(tmp_path / "small.png")]}  # no masks
    found, folder = model.predict(table, return_type=dict)
    assert isinstance(found, dict)
    assert folder == "results"
    assert [ids.shape for ids in found["mask_class_ids"]] == [(80, 112), (40, 50)]
    colors = model.preprocess(tiny_table).training_set_metadata["mask"]["classes"]
    table_of_colors = np.array([c["color"] for c in colors], np.uint8)
    for ids, picture in zip(found["mask_class_ids"], found["mask_predictions"], strict=True):
        assert len(np.unique(ids)) > 1
        assert ids.dtype == picture.dtype == np.uint8
        assert (table_of_colors[ids] == picture.transpose(1, 2, 0)).all()
    frame, _ = model.predict(table, batch_size=2)
    assert list(frame) == ["mask_predictions", "mask_class_ids"]
    assert all((a == b).all() for a, b in zip(frame["mask_class_ids"], found["mask_class_ids"], strict=True))


def test_saved_files_have_ludwigs_names(trained, tiny_table, tmp_path):
    model, _ = trained
    stats, found, folder = model.evaluate(
        split="test", skip_save_predictions=False, skip_save_eval_stats=False, output_directory=tmp_path / "out"
    )
    assert found is None
    assert json.loads((tmp_path / "out" / "test_statistics.json").read_text()) == stats
    with (tmp_path / "out" / "segments_predictions.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [r["image"] for r in rows] == [str(Path(i).resolve()) for i in columns(tiny_table, part="test")["image"]]
    frame, _ = model.predict(split="test")
    for row, ids in zip(rows, frame["segments_class_ids"], strict=True):
        assert (np.asarray(Image.open(Path(folder) / row["segments_predictions"])) == ids).all()


def test_parquet_holds_the_same(trained, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    model, _ = trained
    frame, _ = model.predict(split="test", skip_save_predictions=False, output_directory=tmp_path)
    read = pd.read_parquet(tmp_path / "predictions.parquet")
    for name in frame:
        for saved, ours in zip(read[name], frame[name], strict=True):
            assert np.array([[*map(np.asarray, row)] for row in saved]).tolist() == ours.tolist()
    # One image at a time goes through the memory, a byte for a value.
    file = parquet.ParquetFile(tmp_path / "predictions.parquet")
    assert file.num_row_groups == len(frame) > 1
    assert all(str(kind).count("list") and "uint8" in str(kind) for kind in file.schema_arrow.types)


def test_without_pyarrow_a_line_says_so(trained, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else object())
    model, _ = trained
    with caplog.at_level("WARNING", logger="segdeploy"):
        model.predict(split="test", skip_save_predictions=False, output_directory=tmp_path)
    assert "predictions.parquet needs pyarrow" in caplog.text
    assert not (tmp_path / "predictions.parquet").exists()


def test_saved_model_predicts_the_same(trained, tiny_table, tmp_path):
    model, _ = trained
    model.save(tmp_path / "kept")
    assert {p.name for p in (tmp_path / "kept").iterdir()} == {
        "model.json", "model_hyperparameters.json", "training_set_metadata.json", "model_weights.safetensors",
    }  # fmt: skip
    loaded = SegModel.load(tmp_path / "kept", gpus=-1)
    assert loaded.config == model.config
    ours, theirs = (m.predict(tiny_table, return_type=dict)[0] for m in (model, loaded))
    assert all((a == b).all() for name in ours for a, b in zip(ours[name], theirs[name], strict=True))
    assert loaded.evaluate(tiny_table)[0]["segments"] == model.evaluate(tiny_table)[0]["segments"]
    with pytest.raises(DataError, match="no test part of its own"):
        loaded.evaluate(split="test")
    model.save_config(tmp_path / "config")
    assert SegModel(tmp_path / "config" / "model_hyperparameters.json").config == model.config


def test_run_and_its_model_folder_are_one(trained):
    _, results = trained
    run = Path(results.output_directory)
    whole, part = (SegModel.load(p).evaluate(split="test")[0] for p in (run, run / "model"))
    assert whole["segments"] == part["segments"]


def test_export_to_onnx_runs_in_onnxruntime(varied, tiny_table, tmp_path):
    model = SegModel.load(varied)
    folder = model.export_model(tmp_path / "bundle", format="onnx", dataset=columns(tiny_table))
    assert all(v["passed"] for v in json.loads((Path(folder) / "bundle.json").read_text())["verification"])
    images = [read_image(Path(i)) for i in columns(tiny_table)["image"]]
    session = onnxruntime.InferenceSession(Path(folder) / "model.onnx")
    found = session.run(["mask"], {"image": np.stack([to_network(image) for image in images])})[0]
    loaded = SegModel.load(folder)
    ours, _ = loaded.predict(tiny_table, return_type=dict)
    theirs, _ = model.predict(tiny_table, return_type=dict)
    agree = [(a == b).mean() for a, b in zip(ours["mask_class_ids"], theirs["mask_class_ids"], strict=True)]
    assert min(agree) > 0.999
    program = torch.export.load(model.export_model(tmp_path / "program", format="torch_export")).module()
    batch = torch.from_numpy(np.stack([to_network(image) for image in images]))
    assert (program(batch).numpy() == found).mean() > 0.999
    assert program(batch[:1]).shape == (1, 64, 96)
    assert loaded.config is None
    with pytest.raises(ConfigError, match="loaded without a configuration"):
        loaded.train(tiny_table)


def to_network(image):
    """The size of the tiny configuration, as a plain Pillow call makes it."""
    return np.asarray(Image.fromarray(image).resize((96, 64), Image.Resampling.BILINEAR))


def test_export_formats(trained, tmp_path):
    model, results = trained
    folder = Path(model.export_model(tmp_path / "weights"))
    weights = Path(results.output_directory) / "model" / "model_weights.safetensors"
    assert sha256(folder / "model_weights.safetensors") == sha256(weights)
    extra = {"segdeploy.spec": ""}
    torch.export.load(model.export_model(tmp_path / "one.pt2", format="torch_export"), extra_files=extra)
    assert json.loads(extra["segdeploy.spec"]) == json.loads((folder / "model.json").read_text())
    with pytest.raises(ExportError, match="format: expected one of safetensors, torch_export, onnx, got 'pickle'"):
        model.export_model(tmp_path / "x", format="pickle")
    assert not (tmp_path / "x").exists()


def test_mask_called_combined_keeps_its_statistics(varied, tiny_table, tmp_path):
    """No configuration may call it so, but a model folder comes from anywhere."""
    model = shutil.copytree(varied, tmp_path / "model")
    about = json.loads((model / "model.json").read_text()) | {"mask_name": "combined"}
    (model / "model.json").write_text(json.dumps(about))
    stats, _, _ = SegModel.load(model).evaluate(tiny_table)
    expected, _, _ = SegModel.load(varied).evaluate(tiny_table)
    assert stats["combined"] == expected["mask"]


def test_experiment(config, tiny_table, tmp_path):
    rows = []
    model = SegModel(config, callbacks=[rows.append])
    parts = {f"{p}_set": columns(tiny_table, part=p.replace("training", "train")) for p in ("training", "validation")}
    stats, train_stats, data, run = model.experiment(
        **parts, test_set=columns(tiny_table, part="test"), output_directory=tmp_path, random_seed=7
    )
    assert [row["epoch"] for row in rows] == [1, 2]
    assert run == str(tmp_path / "experiment_run")
    assert stats["mask"]["mean_iou"] == pytest.approx(train_stats["test"]["mask"]["mean_iou"][0])
    assert (Path(run) / "test_statistics.json").is_file()
    assert len(list((Path(run) / "mask_predictions").glob("*.png"))) == len(data.test_set)
    assert model.config["trainer"]["seed"] == 7
    stats, train_stats, _, _ = SegModel(config).experiment(**parts, output_directory=tmp_path)
    assert stats is None
    assert train_stats["test"] == {}


def test_nothing_is_saved_that_was_not_to_be(config, tiny_table, tmp_path):
    model = SegModel(config)
    skips = ("training_description", "training_statistics", "model", "progress", "log")
    results = model.train(tiny_table, output_directory=tmp_path, **{f"skip_save_{name}": True for name in skips})
    run = Path(results.output_directory)
    assert {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()} == {
        "model_card.md", "splits/training.csv", "splits/validation.csv", "splits/test.csv"
    }  # fmt: skip
    stats, _, _ = model.evaluate(split="test")  # the weights are still there
    assert stats["mask"]["mean_iou"] == pytest.approx(results.train_stats.test["mask"]["mean_iou"][0])
    with pytest.raises(ModelError, match=r"latest\.safetensors, found none"):
        SegModel(config).train(model_resume_path=run)


def test_stopped_run_goes_on(config, tiny_table, tmp_path):
    class StopError(Exception):
        pass

    def stop(row):
        raise StopError

    with pytest.raises(StopError):
        SegModel(config).train(tiny_table, output_directory=tmp_path, callbacks=[stop])
    run = tmp_path / "api_experiment_run"
    # As an earlier version wrote it, with the defaults of every rule.
    file = run / "model" / "model_hyperparameters.json"
    known = json.loads(file.read_text())
    known["trainer"]["optimizer"] |= {"betas": [0.9, 0.999], "eps": 1e-8, "momentum": 0.0, "nesterov": False}
    file.write_text(json.dumps(known))
    results = SegModel(config).train(model_resume_path=run)
    assert results.output_directory == str(run)
    whole = SegModel(config).train(tiny_table, output_directory=tmp_path / "whole")
    assert results.train_stats == whole.train_stats
    other = json.loads(json.dumps(config))
    other["trainer"]["learning_rate"] = 1.0
    with pytest.raises(ConfigError, match="goes on with its own configuration"):
        SegModel(other).train(model_resume_path=run)


def test_run_with_a_seed_of_its_own_goes_on(config, tiny_table, tmp_path):
    one_epoch = json.loads(json.dumps(config))
    one_epoch["trainer"]["epochs"] = 1
    run = SegModel(one_epoch).train(tiny_table, output_directory=tmp_path, random_seed=7).output_directory
    assert SegModel(one_epoch).train(model_resume_path=run, random_seed=7).output_directory == run
    with pytest.raises(ConfigError, match="goes on with its own configuration"):
        SegModel(one_epoch).train(model_resume_path=run, random_seed=8)


def test_loaded_model_goes_on_from_its_weights(config, trained, tiny_table, tmp_path):
    _, results = trained
    loaded = SegModel.load(results.output_directory)
    again = loaded.train(tiny_table, output_directory=tmp_path)
    assert again.train_stats["training"]["segments"]["loss"][0] < results.train_stats["training"]["segments"]["loss"][0]
    other = json.loads(json.dumps(config))
    other["output_features"][0]["decoder"]["num_channels"] = 24
    smaller = SegModel(other)
    smaller._model = Path(results.output_directory)
    with pytest.raises(ModelError, match="not those of this model"):
        smaller.train(tiny_table, output_directory=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_preprocess_names_every_broken_file(config, tmp_path):
    table = generate(tmp_path, count=20, size=(64, 96))
    first = sorted((tmp_path / "images").iterdir())[0]
    first.write_bytes(b"no image")
    with pytest.raises(DataError, match=first.name):
        SegModel(config).preprocess(table)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m: m.evaluate("x.csv"), ModelError, "no weights yet"),
        (lambda m: m.train("x.csv", data_format="parquet"), DataError, "data_format: expected auto or csv"),
        (lambda m: m.train({"image": []}, data_format="df"), DataError, "expected auto or dict"),
        (lambda m: m.train("x.csv", callbacks=["x"]), ConfigError, "callbacks: expected functions"),
        (lambda m: m.train("x.csv", training_set_metadata={}), ConfigError, "training_set_metadata: expected None"),
        (lambda m: m.train("x.csv", learning_rate=1), TypeError, "unexpected keyword argument 'learning_rate'"),
        (lambda m: m.experiment("x.csv", eval_split="tset"), ConfigError, "expected one of .*, test, got 'tset'"),
        (lambda m: m.experiment("x.csv", eval_split="full"), ConfigError, "expected one of .*, test, got 'full'"),
        (lambda m: SegModel(3), ConfigError, "config: expected a path or a dict, got int"),
        (lambda m: SegModel({"trainer": {"epohcs": 1}}), ConfigError, "did you mean 'epochs'"),
        (lambda m: SegModel({"trainer": {"epochs": {1}}}), ConfigError, "expected dicts, lists, words"),
        (lambda m: SegModel(m.config, backend="ray"), MissingPartError, "backend: expected local"),
        (lambda m: SegModel(m.config, backend={"type": "horovod"}), MissingPartError, "got 'horovod'"),
    ],
)
def test_mistakes_are_one_line(config, call, error, said):
    with pytest.raises(error, match=said):
        call(SegModel(config, backend="local"))


def test_import_is_light():
    code = (
        "import sys, segdeploy; segdeploy.SegModel; print([m for m in ('torch', 'timm', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'LudwigModel'"):
        segdeploy.LudwigModel  # noqa: B018
