"""Boundary IoU against the authors' own steps: each class a binary mask, a border of zeros, a naive erosion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion

from segdeploy.boundary import boundary_band, boundary_counts, boundary_distance
from segdeploy.metrics import Scores, confusion_matrix


def boundary_of(mask, distance):
    """`mask_to_boundary` of https://github.com/bowenc0221/boundary-iou-api, with SciPy for cv2.erode."""
    padded = np.pad(mask, 1)
    eroded = binary_erosion(padded, np.ones((3, 3)), iterations=distance, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


def loop(target, predicted, count, distance):
    predicted = np.where(target == 255, 255, predicted)
    counts = np.zeros((2, count), np.int64)
    for i in range(count):
        a, b = boundary_of(target == i, distance), boundary_of(predicted == i, distance)
        counts[:, i] = (a & b).sum(), (a | b).sum()
    return counts


@st.composite
def pairs(draw):
    """Blocks of 1 to 4 pixels in two maps that share some of them; some 255 in the target."""
    height, width, block = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    ids = st.integers(0, 2)
    target = draw(arrays(np.uint8, (height, width), elements=ids | st.just(255)))
    other = draw(arrays(np.uint8, (height, width), elements=ids))
    keep = draw(arrays(np.bool_, (height, width)))
    predicted = np.where(keep & (target != 255), target, other).astype(np.uint8)
    grow = np.ones((block, block), np.uint8)
    target, predicted = np.kron(target, grow), np.kron(predicted, grow)
    return target, np.roll(predicted, draw(st.integers(-2, 2)), 1), draw(st.integers(1, 7))


@given(pairs())
def test_against_a_loop_over_binary_masks(case):
    target, predicted, distance = case
    expected = loop(target, predicted, 3, distance)
    np.testing.assert_array_equal(boundary_counts(target, predicted, 3, distance), expected)


@given(pairs())
def test_band_is_each_classs_own(case):
    labels, _, distance = case
    band = boundary_band(labels, distance)
    assert band.dtype == np.uint8
    for i in range(3):
        np.testing.assert_array_equal(band == i, boundary_of(labels == i, distance))


def shapes(rng, size, count):
    """Discs on a ground, and a corner without labels."""
    y, x = np.ogrid[: size[0], : size[1]]
    labels = np.zeros(size, np.uint8)
    for i in range(1, count):
        center = rng.uniform((0, 0), size)
        labels[(y - center[0]) ** 2 + (x - center[1]) ** 2 < rng.uniform(20, 50) ** 2] = i
    labels[:15, :40] = 255
    return labels


def test_several_images_at_the_distance_of_the_paper():
    rng = np.random.default_rng(0)
    counts, expected = np.zeros((2, 5), np.int64), np.zeros((2, 5), np.int64)
    for size, distance in (((120, 160), 4), ((151, 90), 4), ((240, 320), 8)):
        target = shapes(rng, size, 4)
        predicted = np.roll(np.where(target == 255, 2, target).astype(np.uint8), 3, axis=1)
        counts += boundary_counts(target, predicted, 5)
        expected += loop(target, predicted, 5, distance)
    np.testing.assert_array_equal(counts, expected)
    scores = Scores(np.zeros((5, 5), np.int64), counts)
    np.testing.assert_array_equal(scores.boundary_iou[:4], expected[0, :4] / expected[1, :4])
    assert np.isnan(scores.boundary_iou[4])
    assert scores.mean_boundary_iou == pytest.approx((expected[0, :4] / expected[1, :4]).mean())


def test_a_shift_costs_the_boundary_more_than_the_region():
    target = np.zeros((100, 100), np.uint8)
    target[20:80, 20:80] = 1
    predicted = np.roll(target, 2, axis=0)
    scores = Scores(confusion_matrix(target, predicted, 2), boundary_counts(target, predicted, 2))
    assert scores.boundary_iou[1] < scores.iou[1] - 0.2
    # Bands 3 wide. In common: 58 rows of both sides, and of the 54 columns between them one row above and one below.
    both, one = 58 * 6 + 2 * 54, 60 * 60 - 54 * 54
    assert scores.boundary[:, 1].tolist() == [both, 2 * one - both]


@pytest.mark.parametrize(
    ("size", "distance"), [((1, 1), 1), ((30, 40), 1), ((360, 480), 12), ((720, 960), 24), ((1024, 2048), 46)]
)
def test_distance_is_two_percent_of_the_diagonal(size, distance):
    assert boundary_distance(*size) == distance


def test_what_is_predicted_where_the_target_ignores_is_nothing():
    target = np.zeros((30, 30), np.uint8)
    target[:, 20:] = 255
    found = [boundary_counts(target, np.where(target == 255, p, 0).astype(np.uint8), 2) for p in (0, 1, 255)]
    assert all(np.array_equal(f, found[0]) for f in found)
    # One contour for both, with the ignored part and the picture's border, one pixel wide.
    assert found[0].tolist() == [[2 * 20 + 2 * 28, 0], [2 * 20 + 2 * 28, 0]]


def test_inputs_stay_as_they_were():
    target, predicted = np.full((9, 9), 255, np.uint8), np.zeros((9, 9), np.uint8)
    assert boundary_counts(target, predicted, 2).sum() == 0
    assert (target == 255).all()
    assert not predicted.any()


@pytest.mark.parametrize(
    ("target", "predicted", "message"),
    [
        (np.zeros((5, 5), np.int64), np.zeros((5, 5), np.uint8), "uint8"),
        (np.zeros((5, 6), np.uint8), np.zeros((6, 5), np.uint8), "one shape"),
        (np.full((50, 50), 3, np.uint8), np.zeros((50, 50), np.uint8), "below 3"),
        (np.zeros((50, 50), np.uint8), np.full((50, 50), 3, np.uint8), "below 3"),
    ],
)
def test_wrong_arrays_are_refused(target, predicted, message):
    with pytest.raises(ValueError, match=message):
        boundary_counts(target, predicted, 3)
