import json

import pytest
from huggingface_hub import ModelCard

from segdeploy.pages.formats import DASH


@pytest.fixture
def card(tiny_run):
    return (tiny_run / "model_card.md").read_text()


def test_hugging_face_reads_the_front_matter(card, tiny_run):
    read = ModelCard(card).data
    assert (read.library_name, read.pipeline_tag, read.license) == ("segdeploy", "image-segmentation", "unknown")
    assert "semantic-segmentation" in read.tags
    best = json.loads((tiny_run / "best_epoch.json").read_text())
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in read.eval_results}
    for part in ("validation", "test"):
        for key in ("mean_iou", "pixel_accuracy", "mean_class_accuracy"):
            assert found[part, key] == pytest.approx(best[part][key], abs=1e-6)


def test_sections(card):
    heads = [line for line in card.splitlines() if line.startswith("## ")]
    assert heads == [
        "## Intended use", "## Out of scope", "## Data", "## Metrics", "## Training", "## Limits", "## Use"
    ]  # fmt: skip
    assert card.count("to be filled in") >= 6
    assert "\n- 8 epochs, batch size 4, seed 42\n- optimiser adamw, learning rate 0.005\n- loss " in card
    assert "; no augmentation\n- encoder: no pretrained weights were asked for\n" in card


def test_tables(card, tiny_run):
    best = json.loads((tiny_run / "best_epoch.json").read_text())
    tables = [block.splitlines() for block in card.split("\n\n") if block.startswith("|")]
    assert [t[0] for t in tables] == [
        "| metric | validation | test |",
        (
            "| id | class | colour | share of the training pixels | validation IoU | validation recall | "
            "validation precision | test IoU | test recall | test precision |"
        ),
    ]
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert tables[0][
        2
    ] == f"| mean IoU | {best['validation']['mean_iou']:.2%} | {best['test']['mean_iou']:.2%} |".replace("%", "")
    assert len(tables[1]) == 2 + 7
    for line, (name, stats) in zip(tables[1][2:], best["test"]["per_class_stats"].items(), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert (cells[1], cells[7]) == (name, DASH if stats["iou"] is None else f"{stats['iou'] * 100:.2f}")
    poor = [n for n, s in best["test"]["per_class_stats"].items() if s["iou"] is not None and s["iou"] < 0.5]
    assert all(f"{name} (test IoU " in card for name in poor)
