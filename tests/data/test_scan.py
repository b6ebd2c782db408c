from collections import Counter

import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.data.masks import read_mask
from segdeploy.data.scan import auto_class_weights, scan
from segdeploy.data.table import Sample
from segdeploy.errors import DataError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def class_map(count=3, **changes):
    settings = {"names": tuple("abcdef"[:count]), "colors": (RED, GREEN, BLUE, *default_colors(3))[:count]}
    return ClassMap(**{"encoding": "class_id"} | settings | changes)


@pytest.fixture
def save(tmp_path):
    """Masks to samples, each with a grey image of the mask's size."""

    def to_files(*masks):
        samples = []
        for i, mask in enumerate(masks):
            sample = Sample(tmp_path / f"{i}.jpg", tmp_path / f"{i}.png")
            picture = Image.fromarray(np.array(mask) if np.array(mask).dtype == bool else np.array(mask, np.uint8))
            picture.save(sample.mask)
            Image.new("L", picture.size, 128).save(sample.image)
            samples.append(sample)
        return samples

    return to_files


def test_counts(save):
    samples = save([[0, 0, 1], [255, 255, 255]], [[1, 1, 1], [1, 1, 1]], [[0, 255]])
    steps = []
    report = scan(samples, class_map(), lambda done, total: steps.append((done, total)))
    assert report.pixels.tolist() == [3, 7, 0]
    assert report.present.tolist() == [2, 2, 0]
    assert report.ignored == 4
    assert report.sizes == Counter({(2, 3): 2, (1, 2): 1})
    assert steps == [(i, 6) for i in range(1, 7)]  # three images, three masks


def test_counts_are_those_of_the_decoded_masks(save):
    """Every encoding, against `read_mask` and a plain count."""
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 1, 2, 255], (3, 9, 7)).astype(np.uint8)
    spelled = {
        "class_id": ids,
        "color": np.array([RED, GREEN, BLUE, (9, 9, 9)], np.uint8)[np.minimum(ids, 3)],
        "binary": np.where(ids == 0, np.uint8(0), np.uint8(255)),
    }
    for encoding, masks in spelled.items():
        classes = class_map(2 if encoding == "binary" else 3, encoding=encoding, ignore_color=(9, 9, 9))
        samples = save(*masks)
        decoded = [read_mask(s.mask, classes) for s in samples]
        report = scan(samples, classes)
        assert report.pixels.tolist() == [sum(int((m == c).sum()) for m in decoded) for c in range(len(classes))]
        assert report.present.tolist() == [sum(int((m == c).any()) for m in decoded) for c in range(len(classes))]
        assert report.ignored == sum(int((m == 255).sum()) for m in decoded)


def test_all_faults_at_once(save, tmp_path):
    samples = save([[0, 1]], [[0, 1]], [[0, 7]], [[0, 1]], [[0, 1]], [[0, 1]])
    samples[0].image.write_bytes(samples[0].image.read_bytes()[:200])
    samples[0].mask.write_bytes(b"no mask")
    Image.new("L", (5, 4)).save(samples[1].image)
    samples[3].image.unlink()
    samples[4] = Sample(samples[4].image, tmp_path / "none.png")
    with pytest.raises(DataError) as caught:
        scan(samples, class_map())
    lines = str(caught.value).splitlines()
    files = (samples[0].image, samples[0].mask, samples[3].image, samples[4].mask)
    assert [line.partition(": ")[0] for line in lines] == [
        "the data have 6 error(s):", "unreadable (4)", *(f"  {f}" for f in files),
        "size", f"  {samples[1].mask}", "stray", f"  {samples[2].mask}",
    ]  # fmt: skip
    assert "expected the size of 1.jpg, 5x4, found 2x1" in lines[7]
    assert "found 7 (7 in 1 pixels, first at row 0, column 1)" in lines[9]
    assert lines[5].endswith("no such file")


def test_a_table_to_score_may_hold_what_training_may_not(save):
    samples = save([[0, 0]], [[0, 0]])
    assert scan(samples * 2, class_map()).pixels.tolist() == [8, 0, 0]


def test_masks_without_a_label(save):
    with pytest.raises(DataError, match="no labelled pixel"):
        scan(save([[255, 255]]), class_map())


def test_image_without_a_mask(save):
    samples = [*save([[0, 1]]), *(Sample(s.image) for s in save([[0, 1]]))]
    assert scan(samples, class_map()).sizes == {(1, 2): 2}


def test_weights_are_those_of_eigen_and_fergus(save):
    """freq(c) = pixels of c / all pixels of the images that have c; weight = median of freq / freq(c)."""
    rng = np.random.default_rng(0)
    masks = [rng.choice(5, (12, 10), p=p) for p in ([0.6, 0.3, 0.1, 0, 0], [0.9, 0.1, 0, 0, 0], [0.5, 0, 0, 0.5, 0])]
    frequencies = {}
    for c in range(5):
        having = [m for m in masks if (m == c).any()]
        if having:
            frequencies[c] = sum((m == c).sum() for m in having) / sum(m.size for m in having)
    assert sorted(frequencies) == [0, 1, 2, 3]
    expected = [np.median(list(frequencies.values())) / frequencies[c] if c in frequencies else 0 for c in range(5)]
    np.testing.assert_allclose(auto_class_weights(scan(save(*masks), class_map(5))), expected)
