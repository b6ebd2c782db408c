import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segdeploy.data.resize import geometry, resize_image, resize_mask, resize_picture, restore_mask
from segdeploy.model.spec import Preprocessing

MEAN = (0.485, 0.456, 0.406)
BAR = [124, 116, 104]  # MEAN * 255
SIZES = [(24, 36), (37, 53), (100, 30), (30, 100), (1, 1), (1, 70), (65, 1), (48, 64), (3, 4)]


def to(height=48, width=64, resize="stretch"):
    return Preprocessing(height=height, width=width, resize=resize, mean=MEAN, std=MEAN)


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def labels(size, classes=5, seed=0):
    found = np.random.default_rng(seed).integers(0, classes + 1, size, dtype=np.uint8)
    found[found == classes] = 255
    return found


def pillow(array, size, how):
    return np.array(Image.fromarray(array).resize(size[::-1], how))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_stretch_is_pillow(size):
    image, mask = picture(size), labels(size)
    np.testing.assert_array_equal(resize_image(image, to()), pillow(image, (48, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_mask(mask, to()), pillow(mask, (48, 64), Image.Resampling.NEAREST))


# Original size, scaled size and place inside 48 x 64, worked out by hand.
LETTERBOX = [
    ((24, 36), (43, 64), (2, 0)),  # 64 / 36 = 1.78
    ((100, 31), (48, 15), (0, 24)),  # 48 / 100 = 0.48; of 49 columns left over, the odd one is on the right
    ((30, 100), (19, 64), (14, 0)),  # 64 / 100 = 0.64
    ((1, 1), (48, 48), (0, 8)),
    ((1, 200), (1, 64), (23, 0)),  # 0.32 of a pixel is one pixel
    ((3, 4), (48, 64), (0, 0)),
]


@pytest.mark.parametrize(("size", "inner", "offset"), LETTERBOX, ids=str)
def test_letterbox_is_pillow_between_bars(size, inner, offset):
    image, mask, preprocessing = picture(size), labels(size), to(resize="letterbox")
    place = geometry(size, preprocessing)
    assert (place.original, place.inner, place.offset, place.outer) == (size, inner, offset, (48, 64))
    window = np.s_[offset[0] : offset[0] + inner[0], offset[1] : offset[1] + inner[1]]
    expected = np.tile(np.array(BAR, np.uint8), (48, 64, 1))
    expected[window] = pillow(image, inner, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resize_image(image, preprocessing), expected)
    expected = np.full((48, 64), 255, np.uint8)
    expected[window] = pillow(mask, inner, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize_mask(mask, preprocessing), expected)


def test_shrinking_is_antialiased():
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_image(stripes, to()).astype(int) - 127).max() <= 8


sides = st.one_of(st.integers(1, 5), st.integers(1, 130))
policies = st.sampled_from(["stretch", "letterbox"])


@given(sides, sides, st.integers(0, 130), st.integers(0, 130), policies, st.integers(0, 99))
def test_mask_comes_back_as_it_was_from_a_larger_size(height, width, taller, wider, policy, seed):
    mask, preprocessing = labels((height, width), seed=seed), to(height + taller, width + wider, policy)
    np.testing.assert_array_equal(restore_mask(resize_mask(mask, preprocessing), mask.shape, preprocessing), mask)


@given(sides, sides, st.integers(1, 130), st.integers(1, 130), policies, st.integers(0, 99))
def test_sizes_and_classes_whatever_the_size(height, width, outer_height, outer_width, policy, seed):
    size, preprocessing = (height, width), to(outer_height, outer_width, policy)
    mask = labels(size, seed=seed)
    assert resize_image(picture(size), preprocessing).shape == (outer_height, outer_width, 3)
    resized = resize_mask(mask, preprocessing)
    assert resized.shape == (outer_height, outer_width)
    assert set(np.unique(resized)) <= {*np.unique(mask), 255}
    restored = restore_mask(resized, size, preprocessing)
    assert restored.shape == size
    assert set(np.unique(restored)) <= set(np.unique(mask))  # the bars stay outside


@given(sides, sides, st.integers(8, 130), st.integers(8, 130), policies)
def test_what_is_restored_lies_where_it_was(height, width, outer_height, outer_width, policy):
    # A mask of two halves, as a network would give it at its own size.
    preprocessing = to(outer_height, outer_width, policy)
    place = geometry((height, width), preprocessing)
    columns = (np.arange(outer_width) - place.offset[1] + 0.5) / place.inner[1]
    restored = restore_mask(np.tile(columns > 0.5, (outer_height, 1)).astype(np.uint8), (height, width), preprocessing)
    expected = (np.arange(width) + 0.5) / width
    wrong = restored != (expected > 0.5)
    assert (np.abs(expected - 0.5) <= 0.5 / place.inner[1] + 1e-9)[wrong.any(axis=0)].all()


@pytest.mark.parametrize("policy", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_picture_is_resized_as_its_array_is(size, policy):
    image, preprocessing = picture(size), to(resize=policy)
    found = resize_picture(Image.fromarray(image), preprocessing)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, resize_image(image, preprocessing))


@pytest.mark.parametrize("policy", ["stretch", "letterbox"])
def test_same_size_is_left_alone(policy):
    image, mask, preprocessing = picture((48, 64)), labels((48, 64)), to(resize=policy)
    np.testing.assert_array_equal(resize_image(image, preprocessing), image)
    np.testing.assert_array_equal(resize_mask(mask, preprocessing), mask)
    np.testing.assert_array_equal(restore_mask(mask, (48, 64), preprocessing), mask)
