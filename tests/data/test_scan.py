from collections import Counter

import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.data.scan import auto_class_weights, resolve_encoding, scan
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
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_all_faults_at_once_in_order(save, tmp_path):
    samples = save([[0, 1]], [[0, 1]], [[0, 7]], [[0, 1]], [[0, 1]], [[0, 1]])
    samples[0].image.write_bytes(samples[0].image.read_bytes()[:200])
    samples[0].mask.write_bytes(b"no mask")
    Image.new("L", (5, 4)).save(samples[1].image)
    samples[3].image.unlink()
    samples[4] = Sample(samples[4].image, tmp_path / "none.png")
    with pytest.raises(DataError) as caught:
        scan(samples, class_map())
    head, *lines = str(caught.value).splitlines()
    assert head == "5 of 6 samples cannot be used:"
    assert [line.partition(": ")[0] for line in lines] == [
        str(p)
        for p in (
            samples[0].image,
            samples[0].mask,
            samples[1].mask,
            samples[2].mask,
            samples[3].image,
            samples[4].mask,
        )
    ]
    assert lines[2].endswith("expected the size of 1.jpg, 5x4, found 2x1")
    assert lines[3].endswith("found 7")
    assert lines[4].endswith("no such file")


def test_every_fault_is_listed_however_many(save):
    with pytest.raises(DataError) as caught:
        scan(save(*[[[9]]] * 53), class_map())
    lines = str(caught.value).splitlines()
    assert lines[0] == "53 of 53 samples cannot be used:"
    assert len(lines) == 54


def test_masks_without_a_label(save):
    with pytest.raises(DataError, match="no labelled pixel"):
        scan(save([[255, 255]]), class_map())


def test_image_without_a_mask(save):
    samples = [*save([[0, 1]]), *(Sample(s.image) for s in save([[0, 1]]))]
    assert scan(samples, class_map()).sizes == {(1, 2): 2}


@pytest.mark.parametrize(
    ("count", "masks", "expected"),
    [
        (2, [[[0, 0]], [[0, 255]]], "binary"),
        (2, [[[0, 1]], [[0, 255]]], "class_id"),
        (2, [[[0, 1]]], "class_id"),
        (2, [[[0, 0]]], "class_id"),
        (3, [[[0, 255]]], "class_id"),
        (2, [[[0, 255]], [[False, True]]], "binary"),
        (2, [[[0, 1]], [[False, True]]], "class_id"),
        (3, [[[0, 1]], [[RED, GREEN]]], "color"),
        (2, [[[(0, 0, 0), (255, 255, 255)]]], "binary"),
        (2, [[[0, 0]]] * 400 + [[[0, 255]]] + [[[0, 0]]] * 3, "binary"),  # foreground is rare
    ],
)
def test_auto_encoding(save, count, masks, expected):
    samples = save(*masks)
    resolved = resolve_encoding(samples, class_map(count, encoding="auto"))
    assert resolved.encoding == expected
    assert resolved == class_map(count, encoding=expected)


def test_all_masks_of_1_bit(save):
    samples = save([[False, True], [True, True]])
    assert scan(samples, resolve_encoding(samples, class_map(2, encoding="auto"))).pixels.tolist() == [1, 3]


@pytest.mark.parametrize("encoding", ["class_id", "binary", "color"])
def test_chosen_encoding_stays(save, encoding):
    classes = class_map(2, encoding=encoding)
    assert resolve_encoding(save([[RED, RED]]), classes) is classes


def test_auto_encoding_leaves_broken_masks_to_the_scan(save):
    samples = save([[0, 1]], [[0, 255]])
    samples[0].mask.write_bytes(b"no mask")
    assert resolve_encoding(samples, class_map(2, encoding="auto")).encoding == "binary"


def test_colour_masks_need_colours_that_differ(save):
    with pytest.raises(DataError, match="every class needs a `color` of its own"):
        resolve_encoding(save([[RED, GREEN]]), class_map(encoding="auto", colors=(RED, RED, GREEN)))


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
