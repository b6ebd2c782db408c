"""The forms in which people keep images and masks; columns are told by what is in the files."""

import json

import numpy as np
import pytest
from PIL import Image

from segdeploy.data.table import read_table
from segdeploy.errors import DataError
from segdeploy.init.columns import Columns, find_columns
from segdeploy.init.find import find


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)


def mask(path, seed=0, values=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, values, (20, 30), dtype=np.uint8)).save(path)


def pairs(root, images, masks, stems, ending=""):
    for i, stem in enumerate(stems):
        photo(root / images / f"{stem}.jpg", i)
        mask(root / masks / f"{stem}{ending}.png", i)


def stems_of(found):
    return {name: [(s.image.stem, s.mask.stem) for s in samples] for name, samples in found.samples.items()}


def same(*stems):
    return [(stem, stem) for stem in stems]


@pytest.mark.parametrize(
    ("images", "masks", "columns"),
    [("images", "masks", ("image", "mask")), ("img", "labels", ("img", "labels")),
     ("JPEGImages", "annotations", ("JPEGImages", "annotations"))],
)  # fmt: skip
def test_two_folders(tmp_path, images, masks, columns):
    pairs(tmp_path, images, masks, ["a", "b", "c"])
    found = find(tmp_path)
    assert stems_of(found) == {"dataset": same("a", "b", "c")}
    assert found.paths == {"dataset": tmp_path}
    assert (found.image_column, found.mask_column) == columns
    assert read_table(tmp_path, *columns) == found.samples["dataset"]  # what training will read


def test_masks_with_an_ending_need_tables(tmp_path):
    pairs(tmp_path, "images", "masks", ["a", "ab", "b"], "_mask")
    found = find(tmp_path)
    assert stems_of(found) == {"dataset": [("a", "a_mask"), ("ab", "ab_mask"), ("b", "b_mask")]}
    assert found.paths is None


def test_parts_above_the_two_folders(tmp_path):
    for part, stems in (("train", "abc"), ("Valid", "d"), ("test", "e")):
        pairs(tmp_path / part, "imgs", "gt", stems)
    found = find(tmp_path)
    assert stems_of(found) == {"training": same(*"abc"), "validation": same("d"), "test": same("e")}
    assert {k: p.name for k, p in found.paths.items()} == {"training": "train", "validation": "Valid", "test": "test"}
    assert (found.image_column, found.mask_column) == ("imgs", "gt")


def test_parts_inside_the_two_folders(tmp_path):
    for part, stems in (("Training", "abc"), ("validation", "d")):
        pairs(tmp_path, f"images/{part}", f"masks/{part}", stems)
    found = find(tmp_path)
    assert stems_of(found) == {"training": same(*"abc"), "validation": same("d")}
    assert found.paths is None


def test_tables_for_the_parts(tmp_path):
    pairs(tmp_path, "x", "y", "abcd")
    for part, stems in (("train", "ab"), ("val", "c"), ("test", "d")):
        rows = [f"x/{s}.jpg,y/{s}.png" for s in stems]
        (tmp_path / f"{part}.csv").write_text("\n".join(["photo,truth", *rows]))
    found = find(tmp_path)
    assert stems_of(found) == {"training": same("a", "b"), "validation": same("c"), "test": same("d")}
    assert {k: p.name for k, p in found.paths.items()} == {
        "training": "train.csv", "validation": "val.csv", "test": "test.csv"
    }  # fmt: skip
    assert (found.image_column, found.mask_column) == ("photo", "truth")
    (tmp_path / "test.csv").write_text("photo\nx/d.jpg\n")
    found = find(tmp_path)
    assert "test" not in found.samples
    assert found.notes == ("test.csv is left out: it has no column 'truth'.",)


def test_every_tenth_is_held_out_where_there_is_no_validation_part(tmp_path):
    stems = [f"{i:02}" for i in range(25)]
    pairs(tmp_path / "train", "images", "masks", stems)
    found = find(tmp_path)
    assert stems_of(found) == {
        "training": same(*(s for s in stems if s not in ("09", "19"))),
        "validation": same("09", "19"),
    }
    assert found.paths is None
    assert "every 10th of its 25 training samples, 2 in all" in found.split_note


def write_rows(folder, header, row, count=6):
    pairs(folder, "x", "y", [str(i) for i in range(count)])
    (folder / "data.csv").write_text("\n".join([header, *(row.format(i) for i in range(count))]))
    return folder / "data.csv"


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("image,mask", "x/{0}.jpg,y/{0}.png", Columns("image", "mask", None)),
        ("id,b,a", "{0},y/{0}.png,x/{0}.jpg", Columns("a", "b", None)),  # the names say nothing
        ("mask,image", "x/{0}.jpg,y/{0}.png", Columns("mask", "image", None)),  # the names are wrong
        ("image,mask,subset", "x/{0}.jpg,y/{0}.png,train", Columns("image", "mask", "subset")),
        ("image,mask,split", "x/{0}.jpg,y/{0}.png,0", Columns("image", "mask", "split")),
        ("image,mask,count", "x/{0}.jpg,y/{0}.png,0", Columns("image", "mask", None)),
        ("image,mask,mask_small", "x/{0}.jpg,y/{0}.png,y/{0}.png", Columns("image", "mask", None)),
        ("left_image,mask,image", "x/{0}.jpg,y/{0}.png,x/{0}.jpg", Columns("image", "mask", None)),
    ],
)
def test_columns(tmp_path, header, row, columns):
    assert find_columns(write_rows(tmp_path, header, row)) == columns


def test_columns_that_cannot_be_told_apart(tmp_path):
    table = write_rows(tmp_path, "a,b,c", "x/{0}.jpg,y/{0}.png,y/{0}.png")
    with pytest.raises(DataError, match=r"'a' \(about 600 colours\), 'b' \(about 3 colours\), .*name the columns"):
        find_columns(table)
    table = write_rows(tmp_path, "image,mask", "x/{0}.jpg,z/{0}.png")
    with pytest.raises(DataError, match=r"of the columns 'image', 'mask' only 'image' holds files that are there"):
        find_columns(table)


def test_pictures_with_few_colours_are_told_by_name(tmp_path):
    for i in range(4):
        mask(tmp_path / f"{i}.png", i, values=4)
        mask(tmp_path / f"{i}_seg.png", i)
    (tmp_path / "d.csv").write_text("\n".join(["scan,seg", *(f"{i}.png,{i}_seg.png" for i in range(4))]))
    assert find_columns(tmp_path / "d.csv") == Columns("scan", "seg", None)


def test_a_split_column_without_validation(tmp_path):
    table = write_rows(tmp_path, "image,mask,split", "x/{0}.jpg,y/{0}.png,train")
    table.write_text(table.read_text().replace("5.png,train", "5.png,test"))
    assert stems_of(find(table)) == {"training": same(*"0123"), "validation": same("4"), "test": same("5")}


@pytest.mark.parametrize("column", ["split", "subset"])
@pytest.mark.parametrize("beside", [False, True])
def test_rows_that_do_not_say_their_part_are_named(tmp_path, column, beside):
    table = write_rows(tmp_path, f"image,mask,{column}", "x/{0}.jpg,y/{0}.png,train")
    table.write_text(table.read_text().replace("4.png,train", "4.png,").replace("5.png,train", "5.png,test"))
    if beside:  # the folders, which have no split, are no way round it
        pairs(tmp_path, "images", "masks", "abc")
    with pytest.raises(DataError) as caught:
        find(tmp_path if beside else table)
    assert str(caught.value).splitlines() == [
        f"{table}: 1 of 6 row(s) do not say their part; fill {column!r}, or remove the rows:",
        f"{table}:6: {column!r} is empty",
    ]


def test_an_empty_column_is_no_split(tmp_path):
    table = write_rows(tmp_path, "image,mask,note", "x/{0}.jpg,y/{0}.png,")
    assert find_columns(table) == Columns("image", "mask", None)


@pytest.mark.parametrize("suffix", [".tsv", ".json", ".jsonl"])
def test_every_form_of_a_table(tmp_path, suffix):
    pairs(tmp_path, "x", "y", "abcd")
    records = [
        {"photo": f"x/{s}.jpg", "truth": f"y/{s}.png", "part": part}
        for s, part in zip("abcd", ["train", "training", "val", "testing"], strict=True)
    ]
    table = tmp_path / f"table{suffix}"
    if suffix == ".tsv":
        table.write_text("\n".join("\t".join(row) for row in [records[0].keys(), *(r.values() for r in records)]))
    else:
        lines = [json.dumps(r) for r in records]
        table.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    assert find_columns(table) == Columns("photo", "truth", "part")
    found = find(table)
    assert [s.part for s in found.samples["dataset"]] == ["training", "training", "validation", "test"]


def test_one_table_in_a_folder(tmp_path):
    table = write_rows(tmp_path, "image,mask", "x/{0}.jpg,y/{0}.png")
    assert find(tmp_path).paths == {"dataset": table}


def test_all_files_without_a_partner(tmp_path):
    pairs(tmp_path, "images", "masks", "abc")
    (tmp_path / "images/a.jpg").unlink()
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: 2 file(s) without a partner; --skip-unpaired leaves them out:",
        f"{tmp_path / 'images/b.jpg'}: has no mask",
        f"{tmp_path / 'masks/a.png'}: has no image",
    ]


@pytest.mark.parametrize("inside", ["", "train"])
def test_files_without_a_partner_can_be_left_out(tmp_path, inside):
    pairs(tmp_path / inside, "images", "masks", "abcd")
    (tmp_path / inside / "images/a.jpg").unlink()
    (tmp_path / inside / "masks/b.png").unlink()
    found = find(tmp_path, skip_unpaired=True)
    assert sorted(s.image.stem for s in found.all) == ["c", "d"]
    assert found.paths is None  # a table is needed: `read_table` would refuse the folder
    assert "2 file(s) without a partner were left out" in found.notes


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ([str(i) for i in range(1, 31) if i != 10], [str(i) for i in range(1, 31)]),  # 10_mask begins with 1
        ("bcd", "abcd"),
    ],
)
def test_masks_with_an_ending_and_without_an_image_are_left_out(tmp_path, images, masks):
    for i, stem in enumerate(images):
        photo(tmp_path / "images" / f"{stem}.jpg", i)
    for i, stem in enumerate((*masks, "odd", "b_mask_2")):
        mask(tmp_path / "masks" / f"{stem}{'_mask' * (stem in masks)}.png", i)
    found = find(tmp_path, skip_unpaired=True)
    assert {s.mask.stem for s in found.all} == {f"{stem}_mask" for stem in images}
    assert all(s.mask.stem == f"{s.image.stem}_mask" for s in found.all)
    assert "3 file(s) without a partner were left out" in found.notes


@pytest.mark.parametrize("name", ["data.csv", "", "voc"])
def test_only_two_folders_have_files_without_a_partner(tmp_path, name):
    if name == "voc":
        pairs(tmp_path, "JPEGImages", "SegmentationClass", "abc")
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
        (tmp_path / "ImageSets/Segmentation/val.txt").write_text("c\n")
        name = ""
    else:
        write_rows(tmp_path, "image,mask", "x/{0}.jpg,y/{0}.png")
    find(tmp_path / name)
    with pytest.raises(
        DataError, match=r"--skip-unpaired is for a folder with images/ and masks/, found (a|the|tables)"
    ):
        find(tmp_path / name, skip_unpaired=True)


def test_where_no_file_has_a_partner_none_can_be_left_out(tmp_path):
    pairs(tmp_path, "images", "masks", "ab")
    (tmp_path / "images/a.jpg").unlink()
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(DataError, match=r"2 file\(s\) without a partner:"):
        find(tmp_path, skip_unpaired=True)


def test_nothing_that_could_be_a_data_set(tmp_path):
    with pytest.raises(DataError, match="expected a table or a folder, found nothing there"):
        find(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    (line,) = str(caught.value).splitlines()
    for name in ("images/ and masks/", "pets", "cityscapes", "voc", "ade20k", "camvid (train, trainannot"):
        assert name in line
