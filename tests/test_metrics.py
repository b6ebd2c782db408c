import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score, precision_recall_fscore_support
from sklearn.metrics import confusion_matrix as sklearn_confusion

from segdeploy import metrics
from segdeploy.boundary import boundary_counts
from segdeploy.classes import ClassMap, default_colors
from segdeploy.metrics import Scores, confusion_matrix, mean_drop, none_if_nan


@st.composite
def pairs(draw, most=254):
    """Target with some 255, prediction and number of classes."""
    count = draw(st.integers(2, most))
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=8))
    ids = st.integers(0, count - 1)
    target = draw(arrays(np.uint8, shape, elements=ids | st.just(255)))
    return target, draw(arrays(np.uint8, shape, elements=ids)), count


def loop(target, predicted, count):
    table = np.zeros((count, count), np.int64)
    for t, p in zip(target.ravel(), predicted.ravel(), strict=True):
        if t != 255:
            table[t, p] += 1
    return table


@given(pairs())
def test_confusion_matrix_against_a_loop_and_scikit_learn(case):
    target, predicted, count = case
    found = confusion_matrix(target, predicted, count)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, loop(target, predicted, count))
    known = target != 255
    if known.any():
        expected = sklearn_confusion(target[known], predicted[known], labels=range(count))
        np.testing.assert_array_equal(found, expected)


@st.composite
def flat_pairs(draw):
    """Runs of equal pixels up to 40 long, which the two maps begin at places of their own, and some noise."""
    count = draw(st.sampled_from([1, 2, 15, 16, 254, 255]))

    def runs(ids):
        drawn = draw(st.lists(st.tuples(ids, st.integers(1, 40)), min_size=1, max_size=12))
        return np.repeat(*(np.array(column, dtype) for column, dtype in zip(zip(*drawn), (np.uint8, int))))  # noqa: B905

    ids = st.integers(0, count - 1)
    target, predicted = runs(ids | st.just(255)), runs(ids)
    size = min(target.size, predicted.size)
    target, predicted = target[:size], predicted[:size].copy()
    noise = draw(arrays(np.bool_, size, elements=st.booleans(), fill=st.just(False)))
    predicted[noise] = draw(ids)
    predicted[(target == 255) & noise] = draw(st.integers(0, 255))  # nobody looks there
    return target, predicted, count


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 18])
@given(case=flat_pairs())
def test_runs_and_blocks_against_a_loop(block, case):
    target, predicted, count = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK", block)
        np.testing.assert_array_equal(confusion_matrix(target, predicted, count), loop(target, predicted, count))


@given(flat_pairs())
def test_joint_histogram_counts_ignored_pixels_first(case):
    target, predicted, count = case
    predicted = np.where(predicted < count, predicted, 255).astype(np.uint8)
    found = metrics.joint_histogram(target, predicted, count)
    expected = np.zeros((count + 1, count + 1), np.int64)
    np.add.at(expected, (target.astype(np.uint8) + np.uint8(1), predicted + np.uint8(1)), 1)  # 255 + 1 is 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("length", [1, 3, 50])
def test_stray_id_is_found_wherever_it_is(length):
    for place in (0, 49, 99):
        target = np.repeat(np.arange(2, dtype=np.uint8), 50)
        predicted = target.copy()
        target[place : place + length] = 254
        with pytest.raises(ValueError, match="below 2"):
            confusion_matrix(target, predicted, 2)
        with pytest.raises(ValueError, match="below 2"):
            confusion_matrix(predicted, target, 2)


def test_maps_need_not_be_contiguous():
    rng = np.random.default_rng(0)
    target, predicted = rng.integers(0, 3, (2, 40, 60), dtype=np.uint8)
    found = confusion_matrix(target[::2, ::3], predicted.T[::3, ::2].T, 3)
    np.testing.assert_array_equal(found, loop(target[::2, ::3], predicted[::2, ::3], 3))
    assert confusion_matrix(target[:0], predicted[:0], 3).tolist() == [[0] * 3] * 3


@given(pairs(most=5))
def test_scores_against_sets_of_pixels(case):
    target, predicted, count = case
    scores = Scores(confusion_matrix(target, predicted, count))
    known = target != 255
    for i in range(count):
        is_target, is_found = (target == i) & known, (predicted == i) & known
        both = (is_target & is_found).sum()
        for value, whole in (
            (scores.iou[i], (is_target | is_found).sum()),
            (scores.accuracy[i], is_target.sum()),
            (scores.precision[i], is_found.sum()),
        ):
            assert value == both / whole if whole else np.isnan(value)
    right = ((target == predicted) & known).sum()
    assert scores.pixel_accuracy == right / known.sum() if known.any() else np.isnan(scores.pixel_accuracy)


@pytest.mark.parametrize("seed", range(3))
def test_mean_iou_against_torchmetrics(seed):
    torch = pytest.importorskip("torch")
    from torchmetrics.classification import MulticlassJaccardIndex

    rng = np.random.default_rng(seed)
    theirs = MulticlassJaccardIndex(num_classes=7, average="macro", ignore_index=255)
    ours = np.zeros((7, 7), np.int64)
    for _ in range(4):  # one matrix over all images, not a mean over images
        target = rng.integers(0, 7, (16, 20), dtype=np.uint8)
        target[rng.random(target.shape) < 0.1] = 255
        predicted = np.where(rng.random(target.shape) < 0.6, target, rng.integers(0, 7, target.shape)).astype(np.uint8)
        predicted[predicted == 255] = 0
        theirs.update(torch.from_numpy(predicted).long(), torch.from_numpy(target).long())
        ours += confusion_matrix(target, predicted, 7)
    assert Scores(ours).mean_iou == pytest.approx(theirs.compute().item(), abs=1e-6)


def drawn(rng, count):
    """A target with ignored pixels, without the last class, and a prediction without the last but one."""
    target = rng.integers(0, count - 1, (16, 20), dtype=np.uint8)
    target[rng.random(target.shape) < 0.1] = 255
    wrong = rng.integers(0, count - 2, target.shape)
    predicted = np.where((rng.random(target.shape) < 0.6) & (target < count - 2), target, wrong).astype(np.uint8)
    return target, predicted


@pytest.mark.parametrize("seed", range(3))
def test_every_statistic_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    names = tuple("abcdef")
    images = [drawn(rng, len(names)) for _ in range(4)]
    confusion = sum(confusion_matrix(t, p, len(names)) for t, p in images)
    boundary = sum(boundary_counts(t, p, len(names)) for t, p in images)
    stats = Scores(confusion, boundary).to_dict(ClassMap(names=names, colors=default_colors(len(names))))

    target, predicted = (np.concatenate([pair[i].ravel() for pair in images]) for i in (0, 1))
    target, predicted = target[target != 255], predicted[target != 255]
    labels = range(len(names))
    iou = jaccard_score(target, predicted, labels=labels, average=None, zero_division=0)
    precision, recall, _, support = precision_recall_fscore_support(
        target, predicted, labels=labels, zero_division=np.nan
    )
    none = [None if np.isnan(v) else v for v in (*precision, *recall)]
    for i, name in enumerate(names[:-1]):
        found = stats["per_class_stats"][name]
        assert found["iou"] == pytest.approx(iou[i])
        assert found["precision"] == (none[i] if none[i] is None else pytest.approx(none[i]))
        assert found["recall"] == found["accuracy"] == pytest.approx(recall[i])
        assert found["support"] == support[i]
        assert found["boundary_iou"] == boundary[0, i] / boundary[1, i]
    assert stats["per_class_stats"]["e"]["precision"] is None  # never predicted
    assert stats["per_class_stats"]["f"] == dict.fromkeys(found) | {"support": 0}
    assert stats["absent_classes"] == ["f"]
    assert stats["mean_iou"] == pytest.approx(iou[:-1].mean())
    assert stats["boundary_iou"] == pytest.approx((boundary[0, :-1] / boundary[1, :-1]).mean())
    assert stats["accuracy"] == stats["pixel_accuracy"] == pytest.approx(accuracy_score(target, predicted))
    assert stats["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(target, predicted))
    np.testing.assert_array_equal(stats["confusion_matrix"], sklearn_confusion(target, predicted, labels=labels))
    assert json.loads(json.dumps(stats)) == stats


def test_case_worked_by_hand():
    # Class 0: 2 of 3 pixels found, and 1 of class 1 taken for it. Class 1: 1 of 2. Class 2: nowhere.
    target = np.array([0, 0, 0, 1, 1, 255], np.uint8)
    predicted = np.array([0, 0, 1, 1, 0, 0], np.uint8)
    scores = Scores(confusion_matrix(target, predicted, 3))
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(scores.iou, [2 / 4, 1 / 3, np.nan])
    np.testing.assert_array_equal(scores.accuracy, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_array_equal(scores.precision, [2 / 3, 1 / 2, np.nan])
    assert scores.mean_iou == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.pixel_accuracy == 3 / 5


def test_ignored_pixels_leave_the_union_whatever_is_predicted_there():
    target = np.array([0, 1, 255, 255], np.uint8)
    scores = [Scores(confusion_matrix(target, np.array([0, 1, p, p], np.uint8), 2)) for p in (0, 1, 255)]
    assert [s.mean_iou for s in scores] == [1, 1, 1]


def test_class_that_is_predicted_but_never_there_counts_as_zero():
    scores = Scores(confusion_matrix(np.array([0, 0], np.uint8), np.array([0, 1], np.uint8), 2))
    assert scores.iou.tolist() == [0.5, 0.0]
    assert np.isnan(scores.accuracy[1])
    assert scores.mean_iou == 0.25


def test_drop_of_a_mean_is_over_the_classes_of_the_truth():
    """A stray pixel of class 2, which is nowhere, neither makes a drop of a third nor hides one."""
    target = np.repeat(np.array([0, 1], np.uint8), 100)
    stray, half = target.copy(), target.copy()
    stray[0] = 2
    half[:50] = 1
    right, strayed, worse = (Scores(confusion_matrix(target, p, 3)).iou for p in (target, stray, half))
    assert mean_drop(right, strayed) == pytest.approx(0.01 / 2)
    assert mean_drop(strayed, right) == pytest.approx((0.99 + 1 + 0) / 3 - 2 / 3)
    assert mean_drop(strayed, worse) == pytest.approx((0.49 + 1 / 3 + 0) / 3)
    assert mean_drop(right, right) == 0
    assert np.isnan(mean_drop(np.full(3, np.nan), right))


def test_report_names_absent_classes():
    classes = ClassMap(names=("a", "b", "c"), colors=default_colors(3))
    report = Scores(confusion_matrix(np.zeros(4, np.uint8), np.zeros(4, np.uint8), 3)).to_dict(classes)
    assert report["absent_classes"] == ["b", "c"]
    assert report["mean_iou"] == report["pixel_accuracy"] == report["mean_class_accuracy"] == 1.0
    ones = dict.fromkeys(("iou", "accuracy", "precision", "recall"), 1.0)
    assert report["per_class_stats"]["a"] == ones | {"support": 4, "boundary_iou": None}
    assert report["per_class_stats"]["c"] == dict.fromkeys((*ones, "boundary_iou")) | {"support": 0}
    assert report["boundary_iou"] is None  # boundaries were not looked at
    assert report["confusion_matrix"] == [[4, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_nothing_but_ignored_pixels():
    scores = Scores(confusion_matrix(np.full(3, 255, np.uint8), np.zeros(3, np.uint8), 2))
    assert np.isnan([scores.mean_iou, scores.mean_accuracy, scores.pixel_accuracy]).all()
    assert none_if_nan(scores.mean_iou) is None


def test_255_classes():
    ids = np.arange(255, dtype=np.uint8)
    target = np.append(ids, 255).astype(np.uint8)
    predicted = np.append(np.roll(ids, 1), 7).astype(np.uint8)
    found = confusion_matrix(target, predicted, 255)
    np.testing.assert_array_equal(found, np.roll(np.eye(255, dtype=np.int64), -1, axis=1))


@pytest.mark.parametrize(
    ("target", "predicted", "message"),
    [
        (np.zeros(2, np.int64), np.zeros(2, np.uint8), "uint8"),
        (np.zeros(2, np.uint8), np.zeros(2, np.float32), "uint8"),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "one shape"),
        (np.array([3], np.uint8), np.array([0], np.uint8), "below 3"),
        (np.array([0], np.uint8), np.array([3], np.uint8), "below 3"),
        (np.array([0], np.uint8), np.array([255], np.uint8), "below 3"),
    ],
)
def test_wrong_arrays_are_refused(target, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(target, predicted, 3)
