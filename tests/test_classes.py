import numpy as np
import pytest
from pydantic import ValidationError

from segdeploy.classes import ClassMap, default_colors

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
VALID = {"names": ("a", "b", "c"), "colors": (RED, GREEN, BLUE)}


def test_valid():
    classes = ClassMap(**VALID)
    assert len(classes) == 3
    assert (classes.ignore_index, classes.ignore_color, classes.encoding) == (255, None, "auto")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "b")}, "2 names but 3 colours"),
        ({"names": ("a", "b", "a")}, "a stands more than once"),
        ({"names": ("a",), "colors": (RED,)}, "at least 2"),
        ({"names": tuple(map(str, range(256))), "colors": default_colors(256)}, "at most 255"),
        ({"colors": (RED, GREEN, (0, 0, 256))}, "less than or equal to 255"),
        ({"colors": (RED, RED, BLUE), "encoding": "color"}, "colour of its own"),
        ({"ignore_index": 2}, "ignore_index 2 is the id of class 'c'; use a value from 3"),
        ({"ignore_index": 0, "encoding": "class_id"}, "ignore_index 0 is the id of class 'a'"),
        ({"ignore_index": -1}, "greater than or equal to 0"),
        ({"ignore_color": GREEN}, "is the colour of class 'b'"),
        ({"ignore_color": GREEN, "encoding": "color"}, "is the colour of class 'b'"),
        ({"encoding": "binary"}, "0/255 masks have 2 classes, but 3 are named"),
        ({"encoding": "colour"}, "'class_id', 'binary' or 'color'"),
        ({"void": 3}, "Extra inputs"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        ClassMap(**VALID | change)


@pytest.mark.parametrize(
    "change",
    [
        {"ignore_index": 3},
        {"ignore_index": None},
        {"ignore_index": 65535},
        {"ignore_index": 1, "encoding": "color"},  # ids of no file
        {"colors": (RED, RED, RED), "encoding": "class_id"},  # only for show
        {"ignore_color": RED, "encoding": "class_id"},
    ],
)
def test_allowed(change):
    made = ClassMap(**VALID | change)
    assert {key: getattr(made, key) for key in change} == change


def test_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        ClassMap(**VALID).ignore_index = 3


def test_colorize():
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    rgb = ClassMap(**VALID).colorize(labels)
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [[list(RED), list(GREEN)], [list(BLUE), [0, 0, 0]]]


def test_palette():
    assert ClassMap(**VALID).palette() == [*RED, *GREEN, *BLUE] + [0] * (768 - 9)


@pytest.mark.parametrize("count", [2, 21, 255])
def test_default_colors_differ(count):
    colors = default_colors(count)
    assert colors[0] == (0, 0, 0)
    assert len(colors) == len(set(colors)) == count
    assert all(0 <= level <= 255 for color in colors for level in color)
    assert colors[:2] == default_colors(2)  # a class keeps its colour when others are added


def test_several_spellings_of_one_class():
    classes = ClassMap(
        names=("ground", "car"),
        colors=(RED, GREEN),
        values=((1, 2), (7,)),
        mask_colors=((RED, (9, 9, 9)), (GREEN,)),
        ignore_index=(0, 255),
        ignore_color=((0, 0, 0), (1, 1, 1)),
    )
    assert classes.spelled_values == ((1, 2), (7,))
    assert classes.spelled_colors == ((RED, (9, 9, 9)), (GREEN,))
    assert (classes.ignore_values, classes.ignore_colors) == ((0, 255), ((0, 0, 0), (1, 1, 1)))
    assert ClassMap.model_validate_json(classes.model_dump_json()) == classes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": ((1,), (1, 2))}, "value 1 belongs to class 'ground' and to class 'car'"),
        ({"values": ((1,), (2,)), "ignore_index": (2, 3)}, "ignore_index 2 is the value of class 'car'"),
        ({"values": ((1,),)}, "2 names but values of 1 classes"),
        ({"mask_colors": ((RED,), (GREEN, RED))}, r"color \(255, 0, 0\) belongs to class 'ground' and to class 'car'"),
    ],
)
def test_a_spelling_has_one_owner(change, said):
    with pytest.raises(ValidationError, match=said):
        ClassMap(names=("ground", "car"), colors=(RED, GREEN), **change)
