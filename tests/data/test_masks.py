from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.data.masks import decode_mask, read_mask
from segdeploy.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def class_map(count=3, **changes):
    return ClassMap(
        names=tuple("abcdef"[:count]), colors=(RED, GREEN, BLUE, WHITE, *default_colors(2))[:count], **changes
    )


@pytest.fixture
def save(tmp_path):
    def to_file(values, suffix=".png", mode=None, **settings):
        path = tmp_path / f"mask{suffix}"
        picture = values if isinstance(values, Image.Image) else Image.fromarray(np.array(values), mode)
        picture.save(path, **settings)
        return path

    return to_file


def read(path, classes):
    found = read_mask(path, classes)
    assert found.dtype == np.uint8
    return found.tolist()


def indexed(values, palette):
    picture = Image.fromarray(np.array(values, np.uint8)).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([level for color in palette for level in color])  # 4 colours: Pillow saves 2 bits a pixel
    return picture


@pytest.mark.parametrize("encoding", ["auto", "class_id"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_ids_in_grey(save, suffix, encoding):
    path = save(np.array([[0, 1], [2, 255]], np.uint8), suffix)
    assert read(path, class_map(encoding=encoding)) == [[0, 1], [2, 255]]


@pytest.mark.parametrize("count", [253, 254, 255])
def test_as_many_classes_as_fit(save, count):
    classes = ClassMap(names=tuple(f"c{i}" for i in range(count)), colors=default_colors(count))
    ids = np.append(np.arange(count), 255).astype(np.uint8)[None].repeat(3, axis=0)
    found = read_mask(save(ids), classes)
    np.testing.assert_array_equal(found, ids)
    assert found.flags.writeable
    if count < 255:
        ids[1, 4] = count
        with pytest.raises(DataError, match=f"found {count}$"):
            read_mask(save(ids), classes)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_ids_in_16_bit(save, suffix):
    path = save(np.array([[0, 1], [2, 65535]], np.uint16), suffix)
    assert read(path, class_map(ignore_index=65535)) == [[0, 1], [2, 255]]
    with pytest.raises(DataError, match="found 65535"):
        read_mask(path, class_map())


def test_16_bit_ids_are_not_cut_to_8_bits(save):
    with pytest.raises(DataError, match=r"found 256, 257"):
        read_mask(save(np.array([[0, 256, 257]], np.uint16)), class_map())


@pytest.mark.parametrize("encoding", ["auto", "class_id"])
@pytest.mark.parametrize(("ignore", "palette"), [(3, [WHITE, RED, GREEN, BLUE]), (255, [WHITE, RED, GREEN, BLUE] * 64)])
def test_palette_masks_are_indices_not_colours(save, ignore, palette, encoding):
    path = save(indexed([[0, 1], [2, ignore]], palette))
    with Image.open(path) as picture:
        assert picture.mode == "P"
    assert read(path, class_map(encoding=encoding, ignore_index=ignore)) == [[0, 1], [2, 255]]


def test_palette_masks_are_colours_where_that_is_asked_for(save):
    path = save(indexed([[1, 2, 3]], [(9, 9, 9), RED, GREEN, BLUE]), transparency=2)
    assert read(path, class_map(encoding="color")) == [[0, 1, 2]]


def test_0_and_255(save):
    path = save(np.array([[0, 255], [255, 0]], np.uint8))
    assert read(path, class_map(2, encoding="binary")) == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match=r"found 255 \(0/255 masks need `encoding: binary`\)"):
        read_mask(path, class_map(2, encoding="class_id", ignore_index=None))


def test_0_and_255_with_a_third_value(save):
    path = save(np.array([[0, 255, 128]], np.uint8))
    assert read(path, class_map(2, encoding="binary", ignore_index=128)) == [[0, 1, 255]]
    with pytest.raises(DataError, match="expected a binary mask of 0 and 255, found 128"):
        read_mask(path, class_map(2, encoding="binary"))


@pytest.mark.parametrize("encoding", ["auto", "class_id", "binary"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_1_bit(save, suffix, encoding):
    path = save(np.array([[False, True], [True, False]]), suffix)
    assert read(path, class_map(2, encoding=encoding)) == [[0, 1], [1, 0]]


def test_1_bit_with_more_classes_is_not_ignored(save):
    assert read(save(np.array([[False, True]])), class_map(3)) == [[0, 1]]


@pytest.mark.parametrize("encoding", ["auto", "color"])
@pytest.mark.parametrize("alpha", [(), (0,), (255,)])
def test_colours(save, encoding, alpha):
    colors = [[*RED, *alpha], [*BLUE, *alpha], [*GREEN, *alpha], [1, 2, 3, *alpha]]
    path = save(np.array([colors], np.uint8))
    assert read(path, class_map(encoding=encoding, ignore_color=(1, 2, 3))) == [[0, 2, 1, 255]]


def test_stray_colours_are_named(save):
    path = save(np.array([[RED, (254, 0, 0), (9, 9, 8)]], np.uint8))
    with pytest.raises(DataError) as caught:
        read_mask(path, class_map())
    assert str(caught.value) == f"{path}: 2 colour(s) that no class owns: (9, 9, 8), (254, 0, 0)"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_stored_with_more_channels(save, mode):
    path = save(Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).convert(mode))
    assert read(path, class_map()) == [[0, 1, 2, 255]]
    assert read(path, class_map(encoding="class_id")) == [[0, 1, 2, 255]]


def test_colours_are_no_ids(save):
    with pytest.raises(DataError, match="expected one channel of class ids, found a RGB picture; give each class its"):
        read_mask(save(np.array([[RED]], np.uint8)), class_map(encoding="class_id"))


@pytest.mark.parametrize(("value", "expected"), [(3, 255), (7, 255), (254, 255)])
def test_ignore_index(save, value, expected):
    path = save(np.array([[0, value]], np.uint8))
    assert read(path, class_map(ignore_index=value)) == [[0, expected]]


@pytest.mark.parametrize(
    ("values", "changes", "said"),
    [
        ([0, 3], {}, "expected class ids 0 to 2 and 255 for ignore, found 3"),
        ([0, 255], {"ignore_index": None}, "expected class ids 0 to 2, found 255"),
        ([0, 255], {"ignore_index": 7}, "expected class ids 0 to 2 and 7 for ignore, found 255"),
        (range(20), {}, "found 3, 4, 5, 6, 7, 8, 9, 10, ..."),
    ],
)
def test_stray_values_are_named(save, values, changes, said):
    path = save(np.array([values], np.uint8))
    with pytest.raises(DataError) as caught:
        read_mask(path, class_map(**changes))
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg_is_refused(save, suffix):
    with pytest.raises(DataError, match="a JPEG mask holds invented values at every edge; save masks as PNG"):
        read_mask(save(np.zeros((8, 8), np.uint8), suffix), class_map())


def test_jpeg_under_another_name_is_refused(save):
    path = save(np.zeros((8, 8), np.uint8), ".png", format="JPEG")
    with pytest.raises(DataError, match=r"expected PNG, TIFF, BMP, WEBP"):
        read_mask(path, class_map())


def test_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no mask")
    for name in ("x.png", "y.png"):
        with pytest.raises(DataError, match=rf"{name}: "):
            read_mask(tmp_path / name, class_map())


def test_mask_is_turned_like_its_image(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.array([[0, 1, 2]], np.uint8)
    assert read(save(values, exif=exif), class_map()) == [[0], [1], [2]]
    assert read(save(values, ".tif", tiffinfo={0x0112: 6}), class_map()) == [[0], [1], [2]]


@st.composite
def labels_and_classes(draw):
    count = draw(st.integers(2, 255))
    ignore = draw(st.integers(count, 255))
    ids = st.integers(0, count - 1) | st.just(255)
    labels = draw(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=ids))
    codes = draw(st.randoms(use_true_random=False)).sample(range(1 << 24), count + 1)
    *colors, ignore_color = [(c >> 16, c >> 8 & 255, c & 255) for c in codes]
    classes = ClassMap(
        names=tuple(map(str, range(count))),
        colors=tuple(colors),
        ignore_color=ignore_color,
        ignore_index=ignore,
        encoding="color",
    )
    return labels, classes


@given(labels_and_classes())
def test_round_trip(case):
    labels, classes = case
    colored = classes.colorize(labels)
    colored[labels == 255] = classes.ignore_colors[0]
    np.testing.assert_array_equal(decode_mask(Image.fromarray(colored), classes, Path("x")), labels)
    by_id = classes.model_copy(update={"encoding": "class_id"})
    stored = np.where(labels == 255, classes.ignore_index, labels)
    for kind in (np.uint8, np.uint16):
        np.testing.assert_array_equal(decode_mask(Image.fromarray(stored.astype(kind)), by_id, Path("x")), labels)


def test_values_of_their_own(save):
    path = save(np.array([[1, 2, 3], [7, 0, 9]], np.uint8))
    classes = class_map(values=((1,), (2, 7), (3,)), ignore_index=(0, 9))
    assert read(path, classes) == [[0, 1, 2], [1, 255, 255]]
    with pytest.raises(DataError, match=r"expected the values 1, 2, 7, 3 and 0 for ignore, found 9"):
        read_mask(path, class_map(values=((1,), (2, 7), (3,)), ignore_index=0))


def test_values_in_16_bit(save):
    path = save(np.array([[1000, 65535], [40000, 0]], np.uint16))
    assert read(path, class_map(2, values=((1000,), (40000,)), ignore_index=(0, 65535))) == [[0, 255], [1, 255]]


def test_negative_values_belong_to_nobody(save):
    path = save(np.array([[0, -1]], np.int32), ".tif")
    with pytest.raises(DataError, match="found -1"):
        read_mask(path, class_map())


def test_several_colours_of_one_class(save):
    path = save(np.array([[RED, GREEN, BLUE, WHITE, (1, 2, 3)]], np.uint8))
    classes = class_map(2, mask_colors=((RED, BLUE), (GREEN,)), ignore_color=(WHITE, (1, 2, 3)), encoding="color")
    assert read(path, classes) == [[0, 1, 0, 255, 255]]
