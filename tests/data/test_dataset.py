import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.config.preprocessing import Cache
from segdeploy.data import dataset as module
from segdeploy.data.dataset import Dataset
from segdeploy.data.images import read_image
from segdeploy.data.masks import read_mask
from segdeploy.data.resize import resize_image, resize_mask
from segdeploy.data.table import Sample
from segdeploy.errors import DataError
from segdeploy.model.spec import ModelSpec, Part, Preprocessing

PART = Part(name="none", config={}, distribution="none", version="0")
SPEC = ModelSpec(
    encoder=PART,
    decoder=PART,
    classes=ClassMap(names=("a", "b"), colors=default_colors(2), encoding="binary"),
    preprocessing=Preprocessing(height=16, width=24, resize="letterbox", mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)),
)
ITEM_BYTES = 16 * 24 * 4
NONE = Cache(mode="none")


def room(count, mode="memory"):
    return Cache(mode=mode, max_gb=count / 1e9)


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i in range(5):
        sample = Sample(tmp_path / f"{i}.png", tmp_path / f"{i}.mask.png")
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(sample.image)
        Image.fromarray(rng.choice(np.array([0, 255], np.uint8), (20 + i, 30))).save(sample.mask)
        found.append(sample)
    return found


@pytest.fixture
def reads(monkeypatch):
    """The files that are decoded, in order."""
    names = []
    monkeypatch.setattr(module, "read_image", lambda path: names.append(path.name) or read_image(path))
    return names


def test_items_are_read_and_resized(samples):
    data = Dataset(samples, SPEC)
    assert len(data) == 5
    image, mask = data[3]
    np.testing.assert_array_equal(image, resize_image(read_image(samples[3].image), SPEC.preprocessing))
    np.testing.assert_array_equal(mask, resize_mask(read_mask(samples[3].mask, SPEC.classes), SPEC.preprocessing))


@pytest.mark.parametrize("cache", [NONE, room(2 * ITEM_BYTES), room(2 * ITEM_BYTES, "disk"), Cache(mode="disk"), None])
@pytest.mark.parametrize(("order", "size"), [([3, 1, 4, 0, 2], 2), ([0, 0, 1], 3), ([2], 4), ([], 4), (range(4), 1)])
def test_batches_are_items_in_order(samples, order, size, cache):
    reference = [Dataset([s], SPEC, NONE)[0] for s in samples]
    data = Dataset(samples, SPEC, cache)
    for _ in range(2):  # the second time from the cache, as far as it reaches
        batches = list(data.batches(order, size))
        assert [len(images) for images, _ in batches] == [len(order[i : i + size]) for i in range(0, len(order), size)]
        images = [image for images, _ in batches for image in images]
        masks = [mask for _, masks in batches for mask in masks]
        np.testing.assert_equal(images, [reference[i][0] for i in order])
        np.testing.assert_equal(masks, [reference[i][1] for i in order])


@pytest.mark.parametrize(
    ("cache", "kept"),
    [
        (NONE, 0),
        (room(ITEM_BYTES - 1), 0),
        (room(ITEM_BYTES), 1),
        (room(5 * ITEM_BYTES - 1), 4),
        (room(3 * ITEM_BYTES, "disk"), 3),
        (Cache(mode="disk"), 5),
        (None, 5),
    ],
)
def test_cache_keeps_what_it_has_room_for(samples, reads, cache, kept):
    data = Dataset(samples, SPEC, cache)
    for _ in range(2):
        for i in range(5):
            data[i]
    assert len(reads) == 5 + (5 - kept)


@pytest.mark.parametrize("mode", ["none", "memory", "disk"])
def test_batches_are_writable_copies(samples, mode):
    data = Dataset(samples, SPEC, Cache(mode=mode))
    images, masks = next(data.batches([0], 1))
    images[:], masks[:] = 0, 0
    assert data[0][0].any()
    assert data[0][1].any()


def test_next_batch_is_read_ahead_and_no_more(samples, reads):
    batches = Dataset(samples, SPEC, NONE).batches(range(5), 1)
    assert reads == []
    next(batches)
    batches.close()
    assert reads == ["0.png", "1.png"]


def test_broken_file_reaches_the_caller(samples):
    samples[1].image.write_bytes(b"no picture")
    batches = Dataset(samples, SPEC).batches(range(5), 1)
    next(batches)
    with pytest.raises(DataError, match=r"1\.png"):
        next(batches)


def test_sample_without_a_mask(samples):
    with pytest.raises(ValueError, match="has no mask"):
        Dataset([Sample(samples[0].image)], SPEC)[0]
