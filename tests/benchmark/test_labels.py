"""Scores of labels that are right, and of the same one pixel to the side, without a network between."""

import numpy as np
import pytest
from PIL import Image

from segdeploy.benchmark.labels import CheckedRunner, at_size, score
from segdeploy.benchmark.plan import Entry
from segdeploy.benchmark.scoring import Scored, make_accuracy
from segdeploy.bundle import Bundle, open_model
from segdeploy.data.images import read_image
from segdeploy.data.masks import read_mask
from segdeploy.data.table import read_table
from segdeploy.errors import ModelError
from segdeploy.predict import mask_png
from segdeploy.runtime.runner import Runner


class Oracle(Runner):
    """Knows the masks of a table, and gives what `change` makes of them."""

    def __init__(self, samples, spec, change=lambda mask: mask):
        self.labels = {read_image(s.image).tobytes(): change(read_mask(s.mask, spec.classes)) for s in samples}

    def run(self, image):
        return np.stack([self.labels[one.tobytes()] for one in image])

    def describe(self):
        return {}


@pytest.fixture(scope="module")
def model(tiny_run):
    return at_size(open_model(tiny_run), 240, 360)


@pytest.fixture(scope="module")
def table(tmp_path_factory, model):
    """Noise, with masks of a large disc and a large box, of the network's own size: no resize is between."""
    folder, random = tmp_path_factory.mktemp("exact"), np.random.default_rng(0)
    y, x = np.mgrid[:240, :360]
    lines = ["image,mask"]
    for i in range(8):
        mask = np.where((y - 120) ** 2 + (x - 110 - 2 * i) ** 2 < 80**2, 1, 0)
        mask[60:180, 230:340] = 2
        (folder / f"mask{i}.png").write_bytes(mask_png(mask.astype(np.uint8), model.spec.classes))
        Image.fromarray(random.integers(0, 256, (240, 360, 3), np.uint8)).save(folder / f"image{i}.png")
        lines.append(f"image{i}.png,mask{i}.png")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"


def accuracies(model, table, folder, changes):
    samples, scored = read_table(table), []
    for name, change in changes.items():
        (folder / name).mkdir()
        runner = Oracle(samples, model.spec, change)
        told = score(runner, model, table, "mask", folder / name, scored[0].labels if scored else None)
        scored.append(Scored(Entry(name, "other" if scored else "torch"), "fp32", folder / name, told))
    return make_accuracy(scored, samples, model.spec, 5)


def test_one_pixel_to_the_side_costs_the_boundaries_most(model, table, tmp_path):
    changes = {"right": lambda m: m, "shifted": lambda m: np.roll(m, 1, axis=1)}
    right, shifted = accuracies(model, table, tmp_path, changes)
    assert (right.mean_iou, right.boundary_iou, right.label_agreement, right.boundary_delta) == (1, 1, 1, 0)
    assert shifted.label_agreement > 0.98
    assert -0.015 < shifted.miou_delta < 0
    assert shifted.boundary_delta < 4 * shifted.miou_delta
    for found in shifted.per_class[:3]:
        assert found.boundary_delta < 4 * found.iou_delta < 0
    assert len(shifted.worst) == 5


def test_agreement_is_image_by_image_and_the_worst_comes_first(model, table, tmp_path):
    turn = iter(range(8))

    def other_classes(mask):
        """A share of the picture's left, larger from image to image."""
        changed, columns = mask.copy(), 15 * next(turn)
        changed[:, :columns] = (changed[:, :columns] + 1) % 7
        return changed

    _, harmed = accuracies(model, table, tmp_path, {"right": lambda m: m, "harmed": other_classes})
    assert harmed.label_agreement == pytest.approx(1 - np.mean([15 * i / 360 for i in range(8)]))
    assert [p.agreement for p in harmed.worst] == pytest.approx([1 - 15 * i / 360 for i in (7, 6, 5, 4, 3)])
    assert [p.name for p in harmed.worst] == [s.image.name for s in read_table(table)[:2:-1]]


def test_equal_labels_have_no_worst_image(model, table, tmp_path):
    right, same = accuracies(model, table, tmp_path, {"right": lambda m: m, "same": lambda m: m})
    assert same.worst == ()
    assert len(right.worst) == 5


def test_one_class_everywhere_is_suspicious_only_where_torch_sees_more(model, table, tmp_path):
    (tmp_path / "a").mkdir()
    flat = Oracle(read_table(table), model.spec, lambda m: m * 0)
    told = score(flat, model, table, "mask", tmp_path / "a", None)  # finite weights: a poor model, and no NaN
    assert told["image_agreement"] == [1.0] * 8
    (tmp_path / "b").mkdir()
    score(flat, model, table, "mask", tmp_path / "b", tmp_path / "a")
    (tmp_path / "c").mkdir()
    score(Oracle(read_table(table), model.spec), model, table, "mask", tmp_path / "c", None)
    with pytest.raises(ModelError, match="every pixel of every image got the class 'background', as logits"):
        score(flat, model, table, "mask", tmp_path / "b", tmp_path / "c")


def test_weights_that_are_nan_are_found_behind_one_class_everywhere(model, table, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(model.path / model.artifacts[0].file)
    next(w for w in weights.values() if w.is_floating_point()).view(-1)[0] = float("nan")
    save_file(weights, tmp_path / model.artifacts[0].file)
    broken = Bundle(tmp_path, model.spec, model.artifacts)
    (tmp_path / "labels").mkdir()
    flat = Oracle(read_table(table), model.spec, lambda m: m * 0)
    with pytest.raises(ModelError, match="as logits that are NaN give"):
        score(flat, broken, table, "mask", tmp_path / "labels", None)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((1, 4, 6), 7, np.uint8), "hold 7, which is no class: expected 0 to 6"),
        (np.full((1, 4, 6), 255, np.uint8), "hold 255"),
        (np.zeros((1, 4, 6), np.int64), r"expected labels uint8 \(1, 4, 6\), but it gave int64"),
        (np.zeros((4, 6), np.uint8), r"but it gave uint8 \(4, 6\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels, words):
    class Wrong(Runner):
        def run(self, image):
            return labels

        def describe(self):
            return {}

    with pytest.raises(ModelError, match=words):
        CheckedRunner(Wrong(), 7).run(np.zeros((1, 4, 6, 3), np.uint8))
