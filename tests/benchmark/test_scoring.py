"""Scores of one row against another's, from label maps that are made up."""

import numpy as np
import pytest
from PIL import Image

from segdeploy.benchmark.labels import score
from segdeploy.benchmark.plan import Entry
from segdeploy.benchmark.scoring import Scored, make_accuracy
from segdeploy.bundle import Bundle
from segdeploy.classes import ClassMap, default_colors
from segdeploy.data.table import read_table
from segdeploy.errors import ModelError
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.runtime.runner import Runner

SIZE = 20
PART = Part(name="none", config={}, distribution="none", version="0")
SPEC = ModelSpec(
    encoder=PART,
    decoder=PART,
    classes=ClassMap(names=("a", "b", "c"), colors=default_colors(3)),
    preprocessing=Preprocessing(height=SIZE, width=SIZE, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1)),
)


class Fixed(Runner):
    """Gives the same labels whatever it sees."""

    def __init__(self, labels):
        self.labels = labels

    def run(self, image):
        return np.repeat(self.labels[None], len(image), axis=0)

    def describe(self):
        return {}


@pytest.fixture
def told(tmp_path):
    """A function of two label maps: the scores of the second against the first, on one image whose mask is `mask`."""

    def rows(mask, *maps):
        Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / "image.png")
        Image.fromarray(mask).save(tmp_path / "mask.png")
        (tmp_path / "table.csv").write_text("image,mask\nimage.png,mask.png\n")
        bundle, scored = Bundle(tmp_path, SPEC, ()), []
        for i, labels in enumerate(maps):
            (tmp_path / f"labels{i}").mkdir()
            truth = scored[0].labels if scored else None
            found = score(Fixed(labels), bundle, tmp_path / "table.csv", "mask", tmp_path / f"labels{i}", truth)
            scored.append(Scored(Entry(str(i), "other" if i else "torch"), "fp32", tmp_path / f"labels{i}", found))
        return make_accuracy(scored, read_table(tmp_path / "table.csv"), SPEC, 0)[-1]

    return rows


def halves():
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[SIZE // 2 :] = 1
    return labels


def test_a_stray_pixel_of_a_class_that_is_nowhere_is_no_drop(told):
    stray = halves()
    stray[0, 0] = 2
    found = told(halves(), halves(), stray)
    assert found.miou_delta == pytest.approx(-(1 / 200) / 2)
    assert -0.05 < found.boundary_delta < 0
    assert found.mean_iou == pytest.approx((199 / 200 + 1 + 0) / 3)  # the score itself is as everybody counts it


def test_a_stray_pixel_of_torchs_hides_no_drop(told):
    stray, worse = halves(), halves()
    stray[0, 0] = 2
    worse[:5] = 1
    found = told(halves(), stray, worse)
    assert found.miou_delta == pytest.approx((1 / 2 + 200 / 300 - 199 / 200 - 1) / 3)


def test_one_class_is_no_nan_where_the_reference_says_the_same_but_for_a_pixel(told):
    flat = np.zeros((SIZE, SIZE), np.uint8)
    stray = flat.copy()
    stray[0, 0] = 1
    assert told(flat, stray, flat).label_agreement == pytest.approx(399 / 400)


def test_one_class_is_nan_where_the_reference_sees_more(told):
    with pytest.raises(ModelError, match="every pixel of every image got the class 'a', as logits"):
        told(halves(), halves(), halves() * 0)
