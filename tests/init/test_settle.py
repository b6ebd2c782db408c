"""From masks and files of names to classes."""

import json

import numpy as np
import pytest
from PIL import Image

from segdeploy.data.table import Sample
from segdeploy.errors import DataError
from segdeploy.init.look import look
from segdeploy.init.names import find_names
from segdeploy.init.settle import settle

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def facts(folder, *masks, mode=None):
    """Facts of masks that are given as lists of rows, of values or of colours."""
    samples = []
    for i, rows in enumerate(masks):
        picture = Image.fromarray(np.array(rows, np.uint8))
        picture = picture if mode is None else picture.convert(mode)
        picture.save(folder / f"m{i}.png")
        Image.new("RGB", picture.size).save(folder / f"{i}.jpg")
        samples.append(Sample(folder / f"{i}.jpg", folder / f"m{i}.png"))
    return look(samples)


def settled(folder, *masks, names=None, file="classes.txt"):
    if names is not None:
        (folder / file).write_text(names)
    return settle(facts(folder, *masks), find_names(folder), "data")


def spelled(result):
    return [(c.name, mine) for c, mine in zip(result.classes, result.spelled, strict=True)]


def test_counts_by_hand(tmp_path):
    found = facts(tmp_path, [[0, 0, 1], [1, 2, 255]], [[0, 0, 0, 0]])
    assert (found.masks, found.colors, found.sizes) == (2, False, {(2, 3): 1, (1, 4): 1})
    assert found.pixels == {0: 6, 1: 2, 2: 1, 255: 1}
    assert [found.masks_with([v]) for v in (0, 1, 255, 7)] == [2, 1, 1, 0]
    assert (found.pixels_of([0, 2]), found.masks_with([0, 2])) == (7, 2)
    assert found.first[255] == tmp_path / "m0.png"
    assert found.median_size == (2, 3)


def test_a_black_picture_among_colours(tmp_path):
    found = facts(tmp_path, [[BLACK, RED]], [[BLACK, BLACK]])
    assert found.colors
    assert found.pixels == {BLACK: 3, RED: 1}
    assert facts(tmp_path, [[BLACK, (1, 1, 1)]]).pixels == {0: 1, 1: 1}  # RGB on disk, grey in fact


def test_unreadable_masks_are_all_named(tmp_path):
    (tmp_path / "a.png").write_text("no")
    Image.fromarray(np.array([[1, 70000]], np.int32)).save(tmp_path / "b.tif")
    image, names = tmp_path / "image.png", ("a.png", "b.tif", "c.png", "d.jpg")
    Image.new("L", (2, 1)).save(image)
    Image.new("L", (2, 1)).save(tmp_path / "d.jpg")
    with pytest.raises(DataError) as caught:
        look([Sample(image, tmp_path / name) for name in names])
    head, *lines = str(caught.value).splitlines()
    assert head == "4 file(s) cannot be used:"
    assert [line.partition(": ")[0] for line in lines] == [str(tmp_path / n) for n in names]
    assert "found 1 to 70000" in lines[1]
    assert "JPEG mask" in lines[3]


def test_wide_values_among_colours_are_named(tmp_path):
    Image.new("RGB", (2, 1)).save(tmp_path / "image.png")
    Image.fromarray(np.array([[RED, BLUE]], np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[1, 40000]], np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(
        DataError, match=r"1 hold\(s\) wider values; save all masks in one form:\n.*b\.png: found a I;16"
    ):
        look([Sample(tmp_path / "image.png", tmp_path / name) for name in ("a.png", "b.png")])


def test_unreadable_images_are_named(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "mask.png")
    (tmp_path / "image.jpg").write_text("no")
    with pytest.raises(DataError, match=r"1 file\(s\) cannot be used:\n.*image\.jpg: "):
        look([Sample(tmp_path / "image.jpg", tmp_path / "mask.png")])


@pytest.mark.parametrize(
    ("values", "classes", "ignored", "encoding"),
    [
        ([0, 1, 2], [("class_0", (0,)), ("class_1", (1,)), ("class_2", (2,))], (), "class_id"),
        ([0, 1, 255], [("class_0", (0,)), ("class_1", (1,))], (255,), "class_id"),
        ([0, 255], [("background", (0,)), ("foreground", (255,))], (), "binary"),
        ([0, 128, 255], [("class_0", (0,)), ("class_128", (128,)), ("class_255", (255,))], (), "class_id"),
        ([128, 255], [("class_128", (128,)), ("class_255", (255,))], (), "class_id"),
        ([0, 85, 170, 255], [(f"class_{v}", (v,)) for v in (0, 85, 170, 255)], (), "class_id"),
        ([1, 7, 255], [("class_1", (1,)), ("class_7", (7,))], (255,), "class_id"),
    ],
)
def test_values_without_names(tmp_path, values, classes, ignored, encoding):
    result = settled(tmp_path, [values])
    assert (spelled(result), result.ignored, result.encoding) == (classes, ignored, encoding)
    in_order = [mine for _, mine in classes] == [(i,) for i in range(len(classes))]
    assert [c.value for c in result.classes] == [None if in_order or encoding == "binary" else m[0] for _, m in classes]


def test_colours_without_names(tmp_path):
    result = settled(tmp_path, [[BLACK, RED, BLUE]])
    assert spelled(result) == [("class_0", (BLACK,)), ("class_1", (BLUE,)), ("class_2", (RED,))]
    assert result.encoding == "color"


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("classes.yaml", "classes: [sky, road]\nignore_index: 7\n"),
        ("classes.yaml", "ignore_index: 7\nclasses:\n- {id: 1, name: road}\n- {id: 0, name: sky}\n"),
        ("label_map.json", json.dumps({"classes": {"sky": 0, "road": 1}, "ignore_index": [7]})),
        ("id2label.json", json.dumps({"0": "sky", "1": "road"})),
        ("classes.txt", "# names\nsky\nroad\n"),
        ("classes.txt", "0: sky\n1: road\n"),
    ],
)
def test_names_of_values(tmp_path, file, names):
    result = settled(tmp_path, [[0, 1, 1, 7]], names=names, file=file)
    assert spelled(result) == [("sky", (0,)), ("road", (1,))]
    assert result.ignored == (7,)
    assert [c.value for c in result.classes] == [None, None]
    listed = "ignore_index" in names
    assert len(result.warnings) == (0 if listed else 1)
    if not listed:
        assert result.warnings[0].startswith(f"7 has no name in {file} and 25.00% of the pixels (first in m0.png)")


def test_names_from_one_on(tmp_path):
    result = settled(tmp_path, [[1, 2, 255]], names="sky\nroad\n")
    assert spelled(result) == [("sky", (1,)), ("road", (2,))]
    assert ([c.value for c in result.classes], result.ignored) == ([1, 2], (255,))


def test_two_names_for_0_and_255(tmp_path):
    result = settled(tmp_path, [[0, 255]], names="paper\nink\n")
    assert (spelled(result), result.encoding) == ([("paper", (0,)), ("ink", (255,))], "binary")


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("label_colors.txt", "0 0 0 bench\n255 0 0\tred bolt\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbench:0,0,0::\nred bolt:255,0,0::\n"),
        ("classes.yaml", "classes:\n- {name: bench, color: [0, 0, 0]}\n- {name: red bolt, color: [255, 0, 0]}\n"),
    ],
)
def test_names_of_colours(tmp_path, file, names):
    result = settled(tmp_path, [[BLACK, RED, BLUE]], names=names, file=file)
    assert spelled(result) == [("bench", (BLACK,)), ("red bolt", (RED,))]
    assert result.ignored == (BLUE,)
    assert "(0, 0, 255) has no name" in result.warnings[0]


@pytest.mark.parametrize(
    ("rows", "names", "said"),
    [
        ([[3, 3]], None, r"expected masks of at least two classes, found one value \(3\) in all of them"),
        ([[3, 255]], None, r"found one value \(3\) beside 255, which then means 'no label', in all"),
        ([[40, 41]], "a\nb\n", r"no mask has any of its classes; the masks hold 40, 41"),
        ([[BLACK, RED]], "a\nb\n", r"every class needs a color; the masks hold \(0, 0, 0\), \(255, 0, 0\)"),
        ([[0, 1]], "a\na\n", r"a stands more than once"),
        ([[0, 1]], "a\n", r"at least two classes, found 1"),
        ([[[i % 256, i // 256, 9] for i in range(300)]], None, r"found 300 colours in the masks; at most 255"),
    ],
)
def test_what_cannot_be_settled(tmp_path, rows, names, said):
    with pytest.raises(DataError, match=said):
        settled(tmp_path, rows, names=names)


@pytest.mark.parametrize("text", ["classes: 3", "- {id: 1}", "- {id: 0, name: a}\n- b\n", "a: b\nc: d\n"])
def test_names_in_no_known_form(tmp_path, text):
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(DataError, match=r"classes.yaml: expected names of classes"):
        find_names(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ignore_index: 1.5", "expected one pixel value or several in `ignore_index`, found 1.5"),
        ("ignore_index: void", "in `ignore_index`, found 'void'"),
        ("ignore_color: []", r"expected one colour \[red, green, blue\] or several in `ignore_color`, found \[\]"),
        ("ignore_color: [1, 2]", "in `ignore_color`, found"),
    ],
)
def test_what_is_ignored_in_no_known_form(tmp_path, line, said):
    (tmp_path / "classes.yaml").write_text(f"classes: [a, b]\n{line}\n")
    with pytest.raises(DataError, match=f"classes.yaml: .*{said}"):
        find_names(tmp_path)


def test_several_ignored_colours(tmp_path):
    names = "classes: [{name: a, color: [0, 0, 0]}, {name: b, color: [255, 0, 0]}]\nignore_color: "
    white = (255, 255, 255)
    result = settled(tmp_path, [[BLACK, RED, BLUE]], names=f"{names}[0, 0, 255]", file="classes.yaml")
    assert (result.ignored, result.warnings) == ((BLUE,), ())
    result = settled(tmp_path, [[BLACK, RED, BLUE]], names=f"{names}[[0, 0, 255], {[*white]}]", file="classes.yaml")
    assert (result.ignored, result.warnings) == ((BLUE, white), ())


def test_a_slip_is_told_and_named_in_no_weights(tmp_path):
    masks = [np.tile([0, 1], (100, 50)).tolist() for _ in range(20)]
    masks[7][3][4] = 9
    found = settled(tmp_path, *masks)
    assert found.slips == (2,)
    assert len(found.warnings) == 1
    assert "value 9 has 1 pixel(s), in 1 of 20 masks (first in m7.png): a slip?" in found.warnings[0]
    assert found.warnings[0] in found.names_why


def test_classes_keep_their_values_where_a_slip_may_be_deleted(tmp_path):
    masks = [np.tile([0, 1, 3, 3], (100, 25)).tolist() for _ in range(20)]
    masks[7][3][4] = 2
    found = settled(tmp_path, *masks)
    assert found.slips == (2,)
    assert [c.value for c in found.classes] == [0, 1, 2, 3]


def test_many_slips_are_counted(tmp_path):
    masks = [np.tile([0, 1], (100, 50)).tolist() for _ in range(20)]
    for value in range(5):
        masks[value][3][4] = 10 + value
    found = settled(tmp_path, *masks)
    assert found.slips == (2, 3, 4, 5, 6)
    assert (len(found.warnings), found.warnings[-1]) == (4, "So it is with 2 more.")


def test_a_rare_class_is_no_slip(tmp_path):
    masks = [np.tile([0, 1], (100, 50)).tolist() for _ in range(20)]
    for mask in masks[:3]:
        mask[3][4] = 9
    assert settled(tmp_path, *masks).slips == ()
