"""The page of a run as text; `test_page_in_browser` looks at it as a reader does."""

import html
import json
import re
import shutil
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from segdeploy.cli.main import cli
from segdeploy.errors import ModelError
from segdeploy.pages.formats import DASH
from segdeploy.train.page import training_page, write_page

NASTY = "<b>&\"'"


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the run, under its own name."""
    return shutil.copytree(tiny_run, tmp_path / tiny_run.name)


def rewrite(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def text_of(page):
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)).split())


def test_page_is_made_of_the_folder_alone(run, tiny_run):
    (run / "training.html").unlink()
    assert write_page(run).read_bytes() == (tiny_run / "training.html").read_bytes()


def test_command_writes_it_anew(run):
    before = (run / "training.html").read_bytes()
    (run / "training.html").write_text("")
    for path in (run, run / "model"):
        done = CliRunner().invoke(cli, ["inspect", str(path), "--page"])
        assert (done.exit_code, done.output.strip()) == (0, str(run / "training.html"))
    assert (run / "training.html").read_bytes() == before


def test_it_says_what_the_files_say(run):
    rows, best = rows_of(run), json.loads((run / "best_epoch.json").read_text())
    said = text_of(training_page(run))
    top = max(rows, key=lambda row: row["validation_mean_iou"])
    assert (
        f"Best validation mIoU {top['validation_mean_iou'] * 100:.2f} %, in epoch {top['epoch']} of 8. "
        f"Test mIoU of these weights: {best['test']['mean_iou'] * 100:.2f} %."
    ) in said
    assert f"Loss over the epochs training: {rows[0]['training_loss']:.4f} → {rows[-1]['training_loss']:.4f}" in said
    for name, stats in best["validation"]["per_class_stats"].items():
        cells = [stats["iou"], stats["accuracy"], stats["precision"], best["test"]["per_class_stats"][name]["iou"]]
        row = " ".join(DASH if v is None else f"{v * 100:.2f}" for v in cells)
        assert re.search(rf"\b{name} [\d.]+ .*? {re.escape(row)} ", said)
    about = json.loads((run / "description.json").read_text())
    for part in ("training", "validation", "test"):
        assert about["data"][part]["sha256"] in said
        assert about["split"]["sha256"][part] in said
    assert about["machine"]["cpu"] in said
    assert "learning_rate: 0.005" in said
    assert f"segdeploy export {run.name} -o bundle" in said
    assert "--resume" not in said


def test_one_file_without_script(run):
    page = training_page(run)
    assert not re.search(r"<(script|link|iframe|object)\b|\bon\w+=|@import|url\(", page)
    assert set(re.findall(r'(?:src|href)="(data:image/jpeg|#|[^"]*)', page)) == {"data:image/jpeg", "#"}
    assert set(re.findall(r"https?://[^\s\"<]+", page)) == {"http://www.w3.org/2000/svg"}


def test_drawings_have_names_and_are_xml(run):
    drawn = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", training_page(run), re.DOTALL)]
    names = [svg.get("aria-labelledby").split("-title")[0] for svg in drawn]
    assert names == ["loss", "scores", "rate", "speed", *(f"iou-{i}" for i in range(7)), "confusion-0"]
    for svg in drawn:
        ids = {e.get("id"): e.text for e in svg.iter() if e.get("id")}
        assert all(ids[name] for name in svg.get("aria-labelledby").split())


def test_names_of_others_are_only_text(run):
    def rename(content):
        content["classes"]["names"][1] = NASTY

    rewrite(run / "model" / "model.json", rename)
    rewrite(run / "best_examples.json", lambda c: c["worst"][0].update(name=f"{NASTY}.png", image="javascript:1"))
    rewrite(run / "description.json", lambda c: c["machine"].update(cpu=NASTY))
    page = training_page(run)
    assert "<b>" not in page
    assert "javascript" not in page
    assert page.count("&lt;b&gt;&amp;") > 5


def test_training_that_goes_on(run):
    rows = rows_of(run)[:5]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    top = max(rows, key=lambda row: row["validation_mean_iou"])

    def earlier(content):
        del content["test"]
        content["epoch"] = top["epoch"]

    rewrite(run / "best_epoch.json", earlier)
    rewrite(run / "best_examples.json", lambda c: c.update(epoch=top["epoch"] + 1))
    page = training_page(run)
    said = text_of(page)
    best = f"{top['validation_mean_iou'] * 100:.2f} %, in epoch {top['epoch']}"
    assert f"Best validation mIoU {best}; 5 of 8 epochs are done." in said
    assert f"segdeploy train --resume {run.name}" in said
    assert "Test IoU" not in said
    assert "data:image" not in page  # the pictures are of another epoch


def test_training_that_was_stopped_early(run):
    def patient(content):
        content["trainer"]["epochs"] = 100
        content["trainer"]["early_stop"] = 3

    rewrite(run / "model" / "model_hyperparameters.json", patient)
    assert "of 8, stopped early of 100. Test mIoU" in text_of(training_page(run))


def test_files_that_are_missing_leave_out_their_parts(run):
    for name in ("best_epoch.json", "best_examples.json", "description.json"):
        (run / name).unlink()
    for name in ("model_hyperparameters.json", "training_set_metadata.json"):
        (run / "model" / name).unlink()
    rows = [{k: v for k, v in row.items() if k != "validation_class_iou"} for row in rows_of(run)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = training_page(run)
    assert re.findall(r'<h2 id="(\w+)"', page) == ["curves", "classes", "next"]


def test_not_a_run(run, tiny_bundle):
    for folder in (tiny_bundle, run / "splits"):
        with pytest.raises(ModelError, match=r"expected a training's run folder with metrics\.jsonl"):
            write_page(folder)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ModelError, match="is empty; no epoch has ended yet"):
        write_page(run)


def test_many_classes_have_a_list_of_confusions_alone(run):
    names = [f"class {i}" for i in range(30)]
    spec = json.loads((run / "model" / "model.json").read_text())
    spec["classes"] |= {"names": names, "colors": [[i, i, i] for i in range(30)], "values": None, "mask_colors": None}
    (run / "model" / "model.json").write_text(json.dumps(spec))
    matrix = [[100 if i == j else 0 for j in range(30)] for i in range(30)]
    matrix[3][7] = 300
    rewrite(run / "best_epoch.json", lambda c: c["validation"].update(confusion_matrix=matrix))
    page = training_page(run)
    assert "confusion-0" not in page
    assert "30 classes are too many for a readable picture" in text_of(page)
    assert "75.00 % of class 3 is taken for class 7" in text_of(page)
