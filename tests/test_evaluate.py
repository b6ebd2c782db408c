"""Evaluation against a loop of its own: Pillow, scikit-learn and the runner, one image at a time."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from segdeploy.bundle import open_model
from segdeploy.data.table import Sample, read_table
from segdeploy.errors import DataError
from segdeploy.evaluate import evaluate, read_examples
from segdeploy.runtime.runner import open_runner


def pairs_by_hand(runner, samples, at):
    targets, found = [], []
    for sample in samples:
        image = Image.open(sample.image).convert("RGB").resize((96, 64), Image.Resampling.BILINEAR)
        labels = runner.run(np.array(image)[None])[0]
        mask = Image.open(sample.mask)
        if at == "mask":
            labels = np.asarray(Image.fromarray(labels).resize(mask.size, Image.Resampling.NEAREST))
        else:
            mask = mask.resize((96, 64), Image.Resampling.NEAREST)
        mask = np.asarray(mask)
        targets.append(mask[mask != 255])
        found.append(labels[mask != 255])
    return np.concatenate(targets), np.concatenate(found)


@pytest.mark.parametrize("at", ["mask", "model"])
@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_against_scikit_learn(tiny_bundle, tiny_table, backend, at):
    bundle = open_model(tiny_bundle)
    samples = read_table(tiny_table)
    with open_runner(bundle, backend) as runner:
        result = evaluate(runner, samples, bundle.spec, batch_size=3, at=at)
        target, found = pairs_by_hand(runner, samples, at)
    expected = confusion_matrix(target, found, labels=range(7))
    # Batches of three and of one may differ in the last bit of a logit.
    assert np.abs(result.scores.confusion - expected).sum() <= 2e-4 * expected.sum()
    seen = sorted(set(target) | set(found))
    assert result.scores.mean_iou == pytest.approx(jaccard_score(target, found, labels=seen, average="macro"), abs=1e-3)
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
        stats = evaluate(runner, read_table(tiny_table)[:4], bundle.spec).to_dict(bundle.spec)
    assert 0 <= stats["mask"]["mean_iou"] <= 1
    assert set(stats["mask"]["per_class_stats"]) == set(bundle.spec.classes.names)
    assert stats["runner"]["provider"] == "CPUExecutionProvider"


def test_examples_come_in_order(tiny_table, tiny_bundle):
    samples = read_table(tiny_table)
    got = [e.sample for e in read_examples(samples, open_model(tiny_bundle).spec)]
    assert got == samples


def test_missing_mask_and_other_size(tiny_table, tiny_bundle, tmp_path):
    spec = open_model(tiny_bundle).spec
    first = read_table(tiny_table)[0]
    with pytest.raises(DataError, match="has no mask"):
        list(read_examples([Sample(first.image)], spec))
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="112x80, found 10x10"):
        list(read_examples([Sample(first.image, tmp_path / "m.png")], spec))
