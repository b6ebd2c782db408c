"""Evaluation against a loop of its own: Pillow, scikit-learn and the runner, one image at a time."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion
from sklearn.metrics import confusion_matrix, jaccard_score

from segdeploy.bundle import open_model
from segdeploy.data.table import Sample, read_table
from segdeploy.errors import DataError
from segdeploy.evaluate import Example, evaluate, predict_batches, read_examples
from segdeploy.runtime.runner import Runner, open_runner


def pairs_by_hand(runner, samples, at):
    for sample in samples:
        image = Image.open(sample.image).convert("RGB").resize((96, 64), Image.Resampling.BILINEAR)
        labels = runner.run(np.array(image)[None])[0]
        mask = Image.open(sample.mask)
        if at == "mask":
            labels = np.asarray(Image.fromarray(labels).resize(mask.size, Image.Resampling.NEAREST))
        else:
            mask = mask.resize((96, 64), Image.Resampling.NEAREST)
        mask = np.asarray(mask)
        yield mask, labels


def boundary_by_hand(pairs, count):
    """(C,) boundary IoU with a square erosion of each class's mask; the border counts as outside."""
    both, either = np.zeros(count), np.zeros(count)
    for mask, labels in pairs:
        box = np.ones([2 * max(1, round(0.02 * np.hypot(*mask.shape))) + 1] * 2)
        for i in range(count):
            a, b = ((m == i) & (mask != 255) for m in (mask, labels))
            a, b = (m & ~binary_erosion(m, box) for m in (a, b))
            both[i] += (a & b).sum()
            either[i] += (a | b).sum()
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


@pytest.mark.parametrize("at", ["mask", "model"])
@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_against_scikit_learn(tiny_bundle, tiny_table, backend, at):
    bundle = open_model(tiny_bundle)
    samples = read_table(tiny_table)
    with open_runner(bundle, backend) as runner:
        result = evaluate(runner, samples, bundle.spec, batch_size=3, at=at)
        pairs = list(pairs_by_hand(runner, samples, at))
    known = [mask != 255 for mask, _ in pairs]
    target, found = (np.concatenate([p[i][k] for p, k in zip(pairs, known, strict=True)]) for i in (0, 1))
    expected = confusion_matrix(target, found, labels=range(7))
    # Batches of three and of one may differ in the last bit of a logit.
    assert np.abs(result.scores.confusion - expected).sum() <= 2e-4 * expected.sum()
    seen = sorted(set(target) | set(found))
    assert result.scores.mean_iou == pytest.approx(jaccard_score(target, found, labels=seen, average="macro"), abs=1e-3)
    np.testing.assert_allclose(result.scores.boundary_iou, boundary_by_hand(pairs, 7), atol=1e-3)
    assert result.images == 20


def test_backends_agree(tiny_bundle, tiny_table):
    bundle = open_model(tiny_bundle)
    samples = read_table(tiny_table)
    scores = []
    for backend in ("torch", "onnxruntime"):
        with open_runner(bundle, backend) as runner:
            scores.append(evaluate(runner, samples, bundle.spec).scores)
    assert np.abs(scores[0].confusion - scores[1].confusion).sum() <= 1e-3 * scores[0].confusion.sum()
    assert abs(scores[0].mean_iou - scores[1].mean_iou) <= 0.0005


def test_statistics_are_ludwigs_shape(tiny_bundle, tiny_table):
    bundle = open_model(tiny_bundle)
    with open_runner(bundle) as runner:
        result = evaluate(runner, read_table(tiny_table)[:4], bundle.spec)
        plain = evaluate(runner, read_table(tiny_table)[:4], bundle.spec, boundary=False)
    stats = result.to_dict(bundle.spec)
    assert 0 <= stats["mask"]["mean_iou"] <= 1
    assert set(stats["mask"]["per_class_stats"]) == set(bundle.spec.classes.names)
    assert stats["runner"]["provider"] == "CPUExecutionProvider"
    assert "loss" not in stats["mask"]  # the runner shows no logits
    assert plain.to_dict(bundle.spec)["mask"]["boundary_iou"] is None
    assert plain.scores.mean_iou == result.scores.mean_iou
    for name in ("images", "seconds", "runner", "measured_at"):
        assert result.to_dict(bundle.spec.model_copy(update={"mask_name": name}))[name] == stats["mask"]


def test_examples_come_in_order(tiny_table, tiny_bundle):
    samples = read_table(tiny_table)
    got = [e.sample for e in read_examples(samples, open_model(tiny_bundle).spec)]
    assert got == samples


@pytest.mark.parametrize("batch_size", [1, 3])
def test_labels_are_shown_in_order_in_the_callers_thread_before_the_engine_runs_again(
    tiny_table, tiny_bundle, batch_size
):
    bundle, samples = open_model(tiny_bundle), read_table(tiny_table)[:7]
    shown, steps, calls = [], [], []
    with open_runner(bundle) as runner:

        class Counted(Runner):
            def run(self, image):
                calls.append(len(shown))
                return runner.run(image)

            def describe(self):
                return runner.describe()

        def show(example, labels):
            shown.append(example.sample)
            assert threading.current_thread() is threading.main_thread()
            assert (labels == runner.run(example.image[None])[0]).mean() > 0.99  # a batch may round otherwise

        evaluate(
            Counted(),
            samples,
            bundle.spec,
            batch_size=batch_size,
            on_labels=show,
            progress=lambda *step: steps.append(step),
        )
    assert shown == samples
    assert calls == list(range(0, 7, batch_size))
    assert steps == [(i, 7) for i in range(1, 8)]


def test_an_engine_may_write_to_its_own_buffer_again():
    class Reuses(Runner):
        labels = np.zeros((2, 4, 6), np.uint8)

        def run(self, image):
            self.labels[: len(image)] = image[..., 0]
            return self.labels[: len(image)]

        def describe(self):
            return {}

    pictures = [np.full((4, 6, 3), i, np.uint8) for i in range(5)]
    examples = (Example(Sample(Path(f"{i}.png")), picture, picture[..., 0]) for i, picture in enumerate(pictures))
    found = list(predict_batches(Reuses(), examples, 2))  # labels that are looked at when all batches have run
    assert [np.unique(labels).tolist() for _, labels in found] == [[0], [1], [2], [3], [4]]


class Still(Runner):
    """Class 0 everywhere; the third call is interrupted, or none."""

    def __init__(self, interrupted):
        self.left = 3 if interrupted else -1

    def run(self, image):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return np.zeros(image.shape[:3], np.uint8)

    def describe(self):
        return {}


@pytest.mark.parametrize("place", ["engine", "caller"])
def test_interrupt_ends_the_threads(tiny_table, tiny_bundle, place):
    bundle, samples, before = open_model(tiny_bundle), read_table(tiny_table), threading.active_count()

    def interrupt(done, total):
        if place == "caller":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        evaluate(Still(place == "engine"), samples, bundle.spec, progress=interrupt)
    assert caught.tb is not None  # whose frames hold the generators
    assert threading.active_count() == before


def test_broken_mask_in_the_middle_is_named(tiny_table, tiny_bundle, tmp_path):
    bundle, samples = open_model(tiny_bundle), read_table(tiny_table)
    broken = tmp_path / "broken.png"
    broken.write_bytes(samples[6].mask.read_bytes()[:100])
    samples[6] = Sample(samples[6].image, broken)
    done = []
    before = threading.active_count()
    with open_runner(bundle) as runner, pytest.raises(DataError, match=r"broken\.png: broken"):
        evaluate(runner, samples, bundle.spec, progress=lambda *step: done.append(step))
    assert len(done) <= 6
    assert threading.active_count() == before


def test_missing_mask_and_other_size(tiny_table, tiny_bundle, tmp_path):
    spec = open_model(tiny_bundle).spec
    first = read_table(tiny_table)[0]
    with pytest.raises(DataError, match="has no mask"):
        list(read_examples([Sample(first.image)], spec))
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="112x80, found 10x10"):
        list(read_examples([Sample(first.image, tmp_path / "m.png")], spec))
