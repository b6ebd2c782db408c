import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from segdeploy.classes import ClassMap
from segdeploy.data.resize import resize_image
from segdeploy.metrics import confusion_matrix
from segdeploy.model.spec import Preprocessing
from segdeploy.train.examples import KEPT, Extremes


def spec(resize="stretch", height=32, width=64):
    preprocessing = Preprocessing(height=height, width=width, resize=resize, mean=(0.5,) * 3, std=(0.5,) * 3)
    classes = ClassMap(names=("a", "b"), colors=((255, 0, 0), (0, 0, 255)))
    return SimpleNamespace(preprocessing=preprocessing, classes=classes)


def example(name, image, mask):
    return SimpleNamespace(sample=SimpleNamespace(image=SimpleNamespace(name=name)), image=image, mask=mask)


def test_worst_and_best_are_those_of_a_sorted_list():
    rng = np.random.default_rng(0)
    extremes, ious = Extremes(), {}
    for i in range(40):
        truth, found = (rng.random((2, 16, 16)) < rng.random((2, 1, 1))).astype(np.uint8)
        image = np.zeros((16, 16, 3), np.uint8)
        extremes.add(example(f"{i}.png", image, truth), found, confusion_matrix(truth, found, 2))
        ious[f"{i}.png"] = jaccard_score(truth.ravel(), found.ravel(), average="macro")
    blank = np.full((16, 16), 255, np.uint8)
    extremes.add(example("blank.png", image, blank), found, confusion_matrix(blank, found, 2))
    ranked = sorted(ious, key=ious.get)
    assert [s.example.sample.image.name for s in extremes.worst] == ranked[:KEPT]
    assert [s.example.sample.image.name for s in extremes.best] == ranked[: -KEPT - 1 : -1]
    assert [s.iou for s in extremes.worst] == pytest.approx([ious[name] for name in ranked[:KEPT]])


def test_no_image_stands_at_both_ends():
    extremes = Extremes()
    truth = np.zeros((16, 16), np.uint8)
    for i in range(KEPT + 1):
        found = truth.copy()
        found[:i] = 1
        extremes.add(
            example(f"{i}.png", np.zeros((16, 16, 3), np.uint8), truth), found, confusion_matrix(truth, found, 2)
        )
    drawn = extremes.draw(spec(height=16, width=16))
    assert [p["name"] for p in drawn["worst"]] == ["3.png", "2.png", "1.png"]
    assert [p["name"] for p in drawn["best"]] == ["0.png"]


def opened(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_pictures_have_the_proportions_of_the_image(resize):
    """A tall picture, the upper half of one class; the network says so for all but the right quarter."""
    truth = np.zeros((200, 100), np.uint8)
    truth[100:] = 1
    image = np.full((200, 100, 3), 200, np.uint8)
    image[:, :50] = 40
    s = spec(resize)
    labels = np.zeros((32, 64), np.uint8)
    labels[16:] = 1
    labels[:, 48 if resize == "stretch" else 36 :] = 1  # 32 high, so 16 wide, from 24 to 40
    extremes = Extremes()
    pairs = np.array([[15000, 5000], [0, 10000]])
    extremes.add(example("tall.png", resize_image(image, s.preprocessing), truth), labels, pairs)
    (drawn,) = extremes.draw(s)["worst"]
    pictures = {key: opened(drawn[key]) for key in ("image", "truth", "predicted", "errors")}
    assert {p.shape for p in pictures.values()} == {(200, 100, 3)}
    assert abs(pictures["image"][20, 10] - 40).max() < 12
    assert abs(pictures["image"][20, 90] - 200).max() < 12
    assert pictures["truth"][20, 90, 0] > pictures["truth"][20, 90, 2] + 80
    assert pictures["predicted"][20, 95, 2] > pictures["predicted"][20, 95, 0] + 80
    red = pictures["errors"][..., 0] - pictures["errors"][..., 1] > 100
    assert red[:95, 80:].mean() > 0.9
    assert red[105:].mean() < 0.02
    assert red[:, :70].mean() < 0.02
