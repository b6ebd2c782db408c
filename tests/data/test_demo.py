import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdeploy.data.demo import CLASS_COLORS, CLASS_NAMES, IGNORE_VALUE, generate, render

CLASSES = len(CLASS_NAMES)
CABLE = CLASS_NAMES.index("cable")
DISC = CLASS_NAMES.index("disc")
SMALL = (48, 64)


@pytest.fixture(scope="module")
def samples():
    return [render(index) for index in range(40)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("demo") / "below" / "here", count=40, size=SMALL)


def windows(mask, side):
    """All side x side neighbourhoods inside the picture, (H', W', side, side)."""
    return np.lib.stride_tricks.sliding_window_view(mask, (side, side))


def test_class_tables_agree():
    assert len(CLASS_NAMES) == len(CLASS_COLORS) >= 5
    assert CLASS_NAMES[0] == "background"
    assert len(set(CLASS_NAMES)) == len(set(CLASS_COLORS)) == CLASSES
    assert all(0 <= channel <= 255 for color in CLASS_COLORS for channel in color)


def test_same_arguments_give_same_arrays():
    state = np.random.get_state()[1].copy()
    first, again = render(7, size=SMALL, seed=3), render(7, size=SMALL, seed=3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("other", [{"index": 8, "seed": 3}, {"index": 7, "seed": 4}, {"index": 3, "seed": 7}])
def test_index_and_seed_both_count(other):
    image, mask = render(7, size=SMALL, seed=3)
    other_image, other_mask = render(**other, size=SMALL)
    assert np.mean(image != other_image) > 0.5
    assert np.any(mask != other_mask)


@pytest.mark.parametrize("size", [(160, 224), (97, 131), (131, 97), (32, 32), (33, 200), (320, 256)])
def test_shapes_dtypes_and_ranges(size):
    for index in range(3):
        image, mask = render(index, size=size)
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (*size, 3)
        assert mask.shape == size
        assert set(np.unique(mask)) <= {*range(CLASSES), IGNORE_VALUE}
        assert image.std() > 5  # a picture, neither black nor burnt out
        assert np.mean((image == 0) | (image == 255)) < 0.6
        image[0, 0], mask[0, 0] = 1, 1  # both belong to the caller


@pytest.mark.parametrize("size", [(31, 64), (64, 0)])
def test_sizes_too_small_are_refused(size):
    with pytest.raises(ValueError, match="at least 32 x 32"):
        render(0, size=size)


def test_negative_index_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        render(-1)


def test_every_class_is_in_enough_images(samples):
    for class_id in range(CLASSES):
        present = np.mean([np.count_nonzero(mask == class_id) >= 20 for _, mask in samples])
        assert present >= 0.5, CLASS_NAMES[class_id]


def test_background_does_not_take_it_all(samples):
    masks = np.stack([mask for _, mask in samples])
    assert 0.6 < np.mean(masks == 0) < 0.92
    for class_id in range(1, CLASSES):
        assert 0.005 < np.mean(masks == class_id) < 0.1, CLASS_NAMES[class_id]


@pytest.mark.parametrize("size", [(160, 224), (97, 131), (480, 360)])
def test_ignore_border_parts_all_labels(size):
    for index in range(20):
        _, mask = render(index, size=size)
        for one, two in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert np.all((one == two) | (one == IGNORE_VALUE) | (two == IGNORE_VALUE))


def test_ignore_border_is_thin_and_touches_parts(samples):
    masks = [np.pad(mask, 1, mode="edge") for _, mask in samples]
    ignored = np.concatenate([mask[1:-1, 1:-1].ravel() == IGNORE_VALUE for mask in masks])
    part = np.concatenate(
        [np.any((windows(m, 3) != 0) & (windows(m, 3) != IGNORE_VALUE), axis=(2, 3)).ravel() for m in masks]
    )
    solid = np.concatenate([np.all(windows(m, 3) == IGNORE_VALUE, axis=(2, 3)).ravel() for m in masks])
    assert 0.005 < ignored.mean() < 0.06
    assert part[ignored].mean() > 0.99  # the rest borders on parts that something later covered
    assert solid[ignored].mean() < 0.002


def test_cable_is_thin_and_disc_is_not(samples):
    def kept_by_erosion(class_id):
        kept = sum(np.count_nonzero(windows(mask == class_id, 5).min(axis=(2, 3))) for _, mask in samples)
        return kept / sum(np.count_nonzero(mask == class_id) for _, mask in samples)

    assert kept_by_erosion(CABLE) < 0.005
    assert kept_by_erosion(DISC) > 0.4


def test_cable_keeps_its_width(samples):
    """The ignore border lies beside the cable: 2x2 squares of cable pixels cover nearly all of it."""
    covered = total = 0
    for _, mask in samples:
        cable = mask == CABLE
        squares = np.pad(windows(cable, 2).min(axis=(2, 3)), 1)
        covered += np.count_nonzero(windows(squares, 2).max(axis=(2, 3)) & cable)
        total += np.count_nonzero(cable)
    assert covered / total > 0.9


@pytest.fixture(scope="module")
def mean_colors(samples):
    """Mean RGB of each class in the first 20 images, (classes, 3)."""
    sums, counts = np.zeros((CLASSES, 3)), np.zeros((CLASSES, 1))
    for image, mask in samples[:20]:
        for class_id in range(CLASSES):
            sums[class_id] += image[mask == class_id].sum(axis=0)
            counts[class_id] += np.count_nonzero(mask == class_id)
    return sums / counts


def test_color_alone_does_not_solve_it(samples, mean_colors):
    """A nearest-mean-colour classifier, fitted on 20 images, fails on the other 20."""
    hits, unions = np.zeros(CLASSES), np.zeros(CLASSES)
    for image, mask in samples[20:]:
        known = mask != IGNORE_VALUE
        guess = np.linalg.norm(image[known][:, None, :] - mean_colors, axis=2).argmin(axis=1)
        for class_id in range(CLASSES):
            mine, truth = guess == class_id, mask[known] == class_id
            hits[class_id] += np.count_nonzero(mine & truth)
            unions[class_id] += np.count_nonzero(mine | truth)
    iou = hits / unions
    assert iou.mean() < 0.45
    assert iou[1:].max() < 0.3


def test_color_does_not_tell_the_parts_apart(samples, mean_colors):
    """Even told where the parts are, that classifier does little better than chance (1 in 6) at naming them."""
    hits, counts = np.zeros(CLASSES), np.zeros(CLASSES)
    for image, mask in samples[20:]:
        part = (mask != 0) & (mask != IGNORE_VALUE)
        guess = np.linalg.norm(image[part][:, None, :] - mean_colors[1:], axis=2).argmin(axis=1) + 1
        hits += np.bincount(mask[part][guess == mask[part]], minlength=CLASSES)
        counts += np.bincount(mask[part], minlength=CLASSES)
    assert np.mean(hits[1:] / counts[1:]) < 0.3


def test_table_names_files_and_splits(table):
    assert table.name == "dataset.csv"
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == ["image", "mask", "split"]
    assert len(rows) == 40
    assert len({row["image"] for row in rows}) == len({row["mask"] for row in rows}) == 40
    for row in rows:
        for key in ("image", "mask"):
            assert not Path(row[key]).is_absolute()
            assert "\\" not in row[key]
            assert (table.parent / row[key]).is_file()
    assert Counter(row["split"] for row in rows) == {"train": 28, "validation": 6, "test": 6}


def test_files_hold_what_render_gives(table):
    for index in (0, 11, 39):
        image, mask = render(index, size=SMALL)
        with Image.open(table.parent / f"images/{index:04d}.png") as file:
            assert file.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(file), image)
        with Image.open(table.parent / f"masks/{index:04d}.png") as file:
            assert file.mode == "P"
            np.testing.assert_array_equal(np.asarray(file), mask)
            palette = file.getpalette()
            assert tuple(zip(palette[0::3], palette[1::3], palette[2::3], strict=True))[:CLASSES] == CLASS_COLORS
            assert palette[3 * IGNORE_VALUE :] == [255, 255, 255]


def test_growing_a_set_keeps_its_beginning(table, tmp_path):
    short = generate(tmp_path, count=7, size=SMALL)
    assert table.read_text(encoding="utf-8").startswith(short.read_text(encoding="utf-8"))
    assert {line.rsplit(",")[-1] for line in short.read_text(encoding="utf-8").split()[1:]} == {
        "train",
        "validation",
        "test",
    }
    for name in ("images/0006.png", "masks/0006.png"):
        assert (tmp_path / name).read_bytes() == (table.parent / name).read_bytes()


def test_seed_reaches_the_files(table, tmp_path):
    generate(tmp_path, count=1, size=SMALL, seed=1)
    assert (tmp_path / "images/0000.png").read_bytes() != (table.parent / "images/0000.png").read_bytes()


def test_progress_follows_each_sample(tmp_path):
    calls = []
    generate(tmp_path, count=3, size=SMALL, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        generate(tmp_path, count=0)
