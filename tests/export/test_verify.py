"""The judgement on two label streams, with runners that give known labels."""

import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.config.export import Limits
from segdeploy.data.table import Sample
from segdeploy.export.verify import find_truth, verify
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.runtime.runner import Runner

SIZE = 20
SPEC = ModelSpec(
    encoder=Part(name="e", config={}, distribution="d", version="1"),
    decoder=Part(name="d", config={}, distribution="d", version="1"),
    classes=ClassMap(names=("a", "b", "c"), colors=default_colors(3)),
    preprocessing=Preprocessing(height=SIZE, width=SIZE, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1)),
)


class Painted(Runner):
    """Gives the image's red channel as labels, with `changed` pixels of each image set to `to`."""

    def __init__(self, changed=0, to=1):
        self.changed, self.to = changed, to

    def run(self, image):
        labels = image[..., 0].copy()
        labels.reshape(len(labels), -1)[:, : self.changed] = self.to
        return labels

    def describe(self):
        return {"backend": "painted", "precision": "fp32"}


@pytest.fixture
def samples(tmp_path):
    """Two pictures: upper half class 0, lower half class 1; class 2 nowhere."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[SIZE // 2 :] = 1
    found = []
    for i in range(2):
        Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(tmp_path / f"i{i}.png")
        Image.fromarray(labels).save(tmp_path / f"m{i}.png")
        found.append(Sample(tmp_path / f"i{i}.png", tmp_path / f"m{i}.png"))
    return found


@pytest.fixture
def truth(samples):
    return find_truth(Painted(), samples, SPEC)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_equal_labels_pass_at_every_batch_size(truth, batch):
    record = verify(truth, Painted(), Limits(max_miou_drop=0, min_agreement=1), batch, "tensorrt")
    assert (record.batch_size, record.target, record.passed) == (batch, "tensorrt", True)
    assert (record.agreement, record.miou_drop, record.images) == (1.0, 0.0, 2)


def test_drop_and_agreement_by_hand(truth):
    record = verify(truth, Painted(changed=100), Limits(max_miou_drop=0.01, min_agreement=0.9))
    # Half of class 0 became class 1: IoU 100 / 200 and 200 / 300.
    assert record.agreement == pytest.approx(0.75)
    assert record.miou_drop == pytest.approx(1 - (0.5 + 2 / 3) / 2)
    assert (record.worst_class, record.worst_class_drop) == ("a", pytest.approx(0.5))
    assert not record.passed
    assert len(record.reasons) == 2


def test_stray_pixel_of_an_absent_class_is_no_class_of_the_mean(truth):
    record = verify(truth, Painted(changed=1, to=2), Limits(max_miou_drop=0.01, min_agreement=0.9))
    assert record.passed, record.reasons
    assert record.miou_drop == pytest.approx((1 / 200) / 2)


def test_worst_image_is_named(truth):
    class Second(Painted):
        calls = 0

        def run(self, image):
            self.calls += 1
            self.changed = 40 if self.calls == 2 else 0
            return super().run(image)

    record = verify(truth, Second(), Limits())
    assert (record.worst_image, record.worst_agreement) == ("i1.png", pytest.approx(0.9))
