import numpy as np

from segdeploy.classes import ClassMap, default_colors
from segdeploy.evaluate import EvalResult
from segdeploy.metrics import Scores
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.tables import score_table

PART = Part(name="x", config={}, distribution="segdeploy", version="1")
SPEC = ModelSpec(
    encoder=PART,
    decoder=PART,
    classes=ClassMap(names=("road", "tree", "car"), colors=default_colors(3)),
    preprocessing=Preprocessing(height=8, width=8, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1)),
)
RUNNER = {"backend": "torch", "provider": "cpu", "precision": "fp32", "threads": 1}


def cells(boundary):
    scores = Scores(np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]]), boundary)
    text = score_table(EvalResult(scores, 1, "mask", 0.1, RUNNER), SPEC)
    assert max(map(len, text.splitlines())) <= 80
    lines = [[c.strip() for c in line.split("  ") if c.strip()] for line in text.splitlines()]
    return dict(zip([line[0] for line in lines if line], [line[1:] for line in lines if line], strict=True)), text


def test_scores_of_each_class_and_their_means():
    table, text = cells(np.array([[3, 1, 0], [4, 2, 0]]))
    assert table["class"] == ["IoU %", "boundary IoU %", "accuracy %", "precision %", "pixels"]
    assert table["road"] == ["66.67", "75.00", "75.00", "85.71", "8"]
    assert table["tree"] == ["25.00", "50.00", "50.00", "33.33", "2"]
    assert table["car"] == ["-", "-", "-", "-", "0"]
    assert table["mean"] == ["45.83", "62.50", "62.50", "10"]
    assert "left out of the mean: car" in text


def test_boundaries_that_were_not_looked_at_are_dashes():
    table, _ = cells(None)
    assert table["road"][1] == table["mean"][1] == "-"
