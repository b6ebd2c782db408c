"""Which value or colour becomes which class: every row of the rules."""

import json

import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import default_colors
from segdeploy.config.schema import MaskPreprocessing
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import MANY, read_facts
from segdeploy.data.scan import check
from segdeploy.data.table import Sample
from segdeploy.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def settle(tmp_path):
    def call(*masks, **keys):
        samples = []
        for i, mask in enumerate(masks):
            path = tmp_path / f"{i}.png"
            array = np.array(mask)
            picture = mask if isinstance(mask, Image.Image) else Image.fromarray(
                array if array.dtype == bool else array.astype(np.uint16 if array.max() > 255 else np.uint8)
            )  # fmt: skip
            picture.save(path)
            samples.append(Sample(path, path))
        return settle_classes(read_facts(samples), MaskPreprocessing(**keys), "masks")

    return call


@pytest.mark.parametrize(
    ("values", "keys", "expected"),
    [  # values of the classes (None: ids), what is ignored, encoding
        ([0, 1, 2], {"num_classes": 3}, (None, 255, "class_id")),
        ([0, 2], {"num_classes": 3}, (None, 255, "class_id")),
        ([0, 1, 2, 255], {"num_classes": 3}, (None, 255, "class_id")),
        ([1, 2, 3], {"num_classes": 3}, ((1, 2, 3), 255, "class_id")),  # Oxford Pets
        ([1, 2, 3, 255], {"num_classes": 3}, ((1, 2, 3), 255, "class_id")),
        ([0, 128, 255], {"num_classes": 3}, ((0, 128, 255), None, "class_id")),
        ([0, 300, 40000], {"num_classes": 3}, ((0, 300, 40000), 255, "class_id")),
        ([0, 1, 2], {"num_classes": 2, "ignore_index": 0}, ((1, 2), 0, "class_id")),
        ([0, 1, 2, 9], {"num_classes": 2, "ignore_index": (0, 9)}, ((1, 2), (0, 9), "class_id")),
        ([0, 1, 255], {"num_classes": 2, "ignore_index": 255}, (None, 255, "class_id")),
        ([0, 1, 255], {"num_classes": 3, "ignore_index": None}, ((0, 1, 255), None, "class_id")),
        ([0, 255], {"num_classes": 2}, (None, None, "binary")),
        ([255], {"num_classes": 2}, (None, None, "binary")),
        ([0, 255], {"num_classes": "auto"}, (None, None, "binary")),
        ([0, 255], {"num_classes": 2, "encoding": "binary"}, (None, None, "binary")),
        ([0, 1], {"num_classes": 2}, (None, 255, "class_id")),
        ([0, 1, 2, 255], {"num_classes": "auto"}, (None, 255, "class_id")),
        ([0, 3, 9], {"num_classes": "auto"}, ((0, 3, 9), 255, "class_id")),
        ([0, 3, 9, 255], {"num_classes": "auto"}, ((0, 3, 9), 255, "class_id")),
        ([0, 3, 9, 255], {"num_classes": "auto", "ignore_index": None}, ((0, 3, 9, 255), None, "class_id")),
        ([0, 128, 255], {"num_classes": "auto"}, ((0, 128, 255), None, "class_id")),
        ([0, 85, 170, 255], {"num_classes": "auto"}, ((0, 85, 170, 255), None, "class_id")),
        ([0, 128, 255], {"num_classes": "auto", "ignore_index": 255}, ((0, 128), 255, "class_id")),
        ([0, 1, 2], {"num_classes": "auto", "ignore_index": 2}, (None, 2, "class_id")),
    ],
)
def test_values(settle, values, keys, expected):
    classes = settle([values[: len(values) // 2 or 1]], [values], **keys)
    assert (classes.values, classes.ignore_index, classes.encoding) == (
        expected[0] and tuple((v,) for v in expected[0]), *expected[1:],
    )  # fmt: skip
    assert classes.names == tuple(f"class_{i}" for i in range(len(classes)))


@pytest.mark.parametrize(
    ("values", "keys", "said"),
    [
        ([0, 1, 255], {"num_classes": 3}, "`ignore_index: 255` with num_classes: 2, or `ignore_index: null`"),
        ([1, 2, 255], {"num_classes": 3}, "can be a class or mean 'no label'"),
        ([0, 9], {"num_classes": 3}, "expected the values 0 to 2, or 3 values of any kind, found 2: 0, 9; give each"),
        ([0, 1, 2, 9], {"num_classes": 3}, "found 4: 0, 1, 2, 9; set a larger num_classes, or give each class its"),
        ([0, 1], {"num_classes": 2, "ignore_index": 0}, "found 1: 1; give each class its `value`"),
        ([7], {"num_classes": "auto"}, "expected masks of 2 to 255 values, found 1: 7"),
        ([1, 255], {"num_classes": "auto"}, "found 1: 1"),
        ([0, 255], {"num_classes": "auto", "ignore_index": 255}, "found 1: 0"),
        ([0, 0], {"num_classes": "auto", "ignore_index": 0}, "2 to 255 values, found none that has a label; list the"),
        ([0, 0], {"num_classes": "auto", "ignore_index": 0, "encoding": "class_id"}, "found none that has a label"),
        (
            [RED, BLUE],
            {"num_classes": "auto", "encoding": "class_id"},
            "found RGB pictures alone; set `encoding: color`",
        ),
        (range(MANY + 100), {"num_classes": "auto"}, f"found {MANY + 100}: 0, "),
        (range(MANY + 100), {"num_classes": 3}, f"found {MANY + 100}: 0, "),
        (
            [(i % 256, i // 256, 9) for i in range(MANY + 100)],
            {"num_classes": "auto"},
            f"255 classes, found {MANY + 100}: ",
        ),
        (range(300), {"num_classes": "auto"}, "found 299: 0, 1, 2, 3, 4, 5, 6, 7, ...; Smoothed edges"),
        ([0, 255], {"num_classes": 3, "encoding": "binary"}, "0/255 masks have 2 classes, but num_classes is 3"),
        ([RED, GREEN, BLUE], {"num_classes": 2}, r"expected the colours of 2 classes, found 3: \(0, 0, 255\), "),
        ([RED], {"num_classes": "auto"}, "expected colours of at least 2 classes, found 1"),
        ([RED, GREEN], {"classes": ({"name": "a", "color": RED}, {"name": "b", "color": RED})}, "`color` of its own"),
        (
            [0, 255],
            {"num_classes": 2, "ignore_index": 1},
            "read as `encoding: binary`, and then ignore_index 1 is the id",
        ),
    ],
)
def test_refused(settle, values, keys, said):
    if "classes" in keys:
        import json

        keys = dict(MaskPreprocessing.model_validate_json(json.dumps(keys)))
    with pytest.raises(DataError, match=f"^masks: .*{said}"):
        settle([list(values)], **keys)


def test_colours_are_classes_in_their_order(settle):
    classes = settle([[RED, GREEN]], [[BLUE, WHITE]], num_classes=3, ignore_color=WHITE)
    assert (classes.colors, classes.encoding, classes.ignore_colors) == ((BLUE, GREEN, RED), "color", (WHITE,))
    assert settle([[RED, GREEN]], [[BLUE, WHITE]], num_classes="auto").colors == (BLUE, GREEN, RED, WHITE)


def test_fewer_colours_than_classes(settle, caplog):
    classes = settle([[RED, (0, 0, 0)]], num_classes=5)
    assert classes.colors[:2] == ((0, 0, 0), RED)
    assert len(set(classes.colors)) == 5
    (line,) = caplog.messages
    assert line == "masks: num_classes is 5, but the masks hold 2 colours; class_2 to class_4 never occur"


def test_order_of_values_is_said(settle, caplog):
    settle([[1, 2, 3]], num_classes=3)
    assert caplog.messages == ["masks: the values 1, 2, 3 are the classes class_0 to class_2"]


def test_palette_colours_are_for_pictures(settle):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([*RED, *GREEN, *BLUE])
    assert settle(picture, num_classes=3).colors == (RED, GREEN, BLUE)
    assert settle([[0, 1, 2]], num_classes=3).colors == default_colors(3)


@pytest.mark.parametrize(
    ("classes", "masks", "expected"),
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
        (2, [[[0, 0]]] * 200 + [[[0, 255]]], "binary"),  # foreground is rare
    ],
)
def test_encoding_of_named_classes(settle, classes, masks, expected):
    assert settle(*masks, classes=tuple("abc"[:classes])).encoding == expected


@pytest.mark.parametrize("ignored", [255, [7, 255]])
def test_255_that_is_ignored_is_no_class(tmp_path, ignored):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "mask.png")
    Image.new("RGB", (2, 1)).save(tmp_path / "image.png")
    facts = read_facts([Sample(tmp_path / "image.png", tmp_path / "mask.png")])
    keys = MaskPreprocessing.model_validate_json(json.dumps({"classes": ["a", "b"], "ignore_index": ignored}))
    classes = settle_classes(facts, keys, "masks")
    assert classes.encoding == "class_id"
    assert "binary-mask" in [f.rule for f in check({"training": facts}, classes) if f.severity == "error"]


def test_255_as_the_value_of_a_class(settle):
    named = ({"name": "a", "value": 0}, {"name": "b", "value": 255})
    keys = dict(MaskPreprocessing.model_validate_json(json.dumps({"classes": named})))
    classes = settle([[0, 255]], **keys)
    assert (classes.values, classes.ignore_index, classes.encoding) == (((0,), (255,)), None, "class_id")


def test_unreadable_and_jpeg_masks_decide_nothing(tmp_path):
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / name)
    Image.fromarray(np.array([[RED, GREEN]] * 9, np.uint8)).save(tmp_path / "b.jpg")
    (tmp_path / "c.png").write_bytes(b"no mask")
    facts = read_facts([Sample(tmp_path / n, tmp_path / n) for n in ("a.png", "b.jpg", "c.png")])
    assert settle_classes(facts, MaskPreprocessing(classes=("a", "b")), "masks").encoding == "binary"
    with pytest.raises(DataError, match="found none that can be read"):
        settle_classes(facts[2:], MaskPreprocessing(num_classes=2), "masks")


@pytest.mark.parametrize(
    "masks",
    [
        ([[0, 1]], [[0, 77]], [[1, 2]]),
        ([[0, 1, 2, 255]], [[0, 1, 2, 7]], [[0, 255]]),
        ([[RED, GREEN]], [[RED, GREEN, BLUE, WHITE]], [[RED, GREEN]]),
    ],
)
def test_a_refusal_names_the_odd_mask(settle, masks):
    with pytest.raises(DataError, match=r"Look at \S*1\.png first$"):
        settle(*masks, num_classes=3)
