import hashlib

import pytest

from segdeploy.data.table import Sample, Tables, find_images, fingerprint, read_table
from segdeploy.errors import DataError


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def touch(folder, *names):
    for name in names:
        write(folder / name, name)
    return folder


@pytest.fixture
def table(tmp_path):
    return lambda text, **kw: write(tmp_path / "data.csv", text, **kw)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_are_relative_to_the_table(table, tmp_path, encoding):
    path = table("mask,image,note\nm/ä.png,i/1.jpg,x\n/abs/2.png,../2.jpg,\n", encoding=encoding)
    assert read_table(path) == [
        Sample(tmp_path / "i/1.jpg", tmp_path / "m/ä.png"),
        Sample(tmp_path / "../2.jpg", tmp_path.joinpath("/abs/2.png")),
    ]


def test_columns_have_the_names_that_are_asked_for(table, tmp_path):
    path = table('photo,label,part\n"a,b.jpg",a.png,val\n')
    expected = [Sample(tmp_path / "a,b.jpg", tmp_path / "a.png", "validation")]
    assert read_table(path, "photo", "label", "part") == expected


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["0", "train", "Training", " TRAIN "], "training"),
        (["1", "val", "valid", "VALIDATION"], "validation"),
        (["2", "test", "Test"], "test"),
        ([""], None),
    ],
)
def test_split_words(table, words, part):
    path = table("image,mask,split\n" + "".join(f"a.png,b.png,{word}\n" for word in words))
    assert [s.part for s in read_table(path)] == [part] * len(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\na,b\n", "data.csv: expected a column 'mask', found image, label"),
        ("", "data.csv: expected a column 'image', found none"),
        ("image,mask\n", "data.csv: expected at least one row, found none"),
        ("image,mask\na,b\nc,\n", "data.csv:3: expected a path in 'image' and 'mask', found an empty cell"),
        ("image,mask\n\n\na,b\nc\n", "data.csv:5: expected a path"),
        ("image,mask,split\na,b,trian\n", "data.csv:2: expected train, validation or test .* in 'split', got 'trian'"),
    ],
)
def test_mistakes_in_a_table_are_named_with_their_line(table, text, said):
    with pytest.raises(DataError, match=said):
        read_table(table(text))


def test_table_that_is_no_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"image,mask\n\xff\xfe,x\n")
    with pytest.raises(DataError, match=r"x\.csv: expected a CSV file in UTF-8"):
        read_table(tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"y\.csv: expected a table or a folder with images/ and masks/"):
        read_table(tmp_path / "y.csv")


def test_table_that_cannot_be_read(table, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = table("image,mask\na,b\n")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"data\.csv: cannot be read: Permission denied"):
        read_table(path)


@pytest.mark.parametrize("folders", [("images", "masks"), ("image", "mask")])
def test_folder_pair(tmp_path, folders):
    images, masks = folders
    touch(tmp_path, f"{images}/b.jpg", f"{images}/s/a.v2.JPEG", f"{images}/notes.txt")
    touch(tmp_path, f"{masks}/b.png", f"{masks}/s/a.v2.png")
    assert read_table(tmp_path) == [
        Sample(tmp_path / images / "b.jpg", tmp_path / masks / "b.png"),
        Sample(tmp_path / images / "s/a.v2.JPEG", tmp_path / masks / "s/a.v2.png"),
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["images/a.png", "images/b.png", "masks/a.png"],
            r"1 file\(s\) without a partner; .* image 'b'; take them away, or let segdeploy init .* --skip-unpaired",
        ),
        (["images/a.png", "masks/b.png"], r"2 file\(s\) without a partner; .* image 'a'; take them away$"),
        (["images/a.png", "masks/a.png", "masks/b.png"], r"1 file\(s\) without a partner; .* mask 'b'"),
        (["images/a.png", "images/s/a.png", "masks/a.png", "masks/t/a.png"], r"2 file\(s\) without a partner"),
        (["images/a.png", "images/a.jpg", "masks/a.png"], r"images: a\.(png|jpg) and a\.(png|jpg) have the same stem"),
        (["images/a.png"], "found no masks/"),
        (["masks/a.png"], "found no images/"),
        (["images/a.txt", "masks/a.png"], "images: expected image files"),
    ],
)
def test_mistakes_in_a_folder_pair(tmp_path, names, said):
    with pytest.raises(DataError, match=said):
        read_table(touch(tmp_path, *names))


def test_find_images(tmp_path):
    touch(tmp_path, "b.PNG", "a/c.webp", "a/d.tiff", "a/e.txt", "z.jpg.part")
    assert find_images([tmp_path]) == [tmp_path / n for n in ("a/c.webp", "a/d.tiff", "b.PNG")]
    assert find_images([tmp_path / "a/e.txt", tmp_path / "b.PNG"]) == [tmp_path / "a/e.txt", tmp_path / "b.PNG"]
    with pytest.raises(DataError, match="none: no such file or folder"):
        find_images([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected image files"):
        find_images([tmp_path / "empty"])


def test_fingerprint_is_of_the_bytes_in_order(tmp_path):
    touch(tmp_path, "a", "b", "c")
    (tmp_path / "copy").write_text("a")
    a, b, c, copy = (tmp_path / n for n in ("a", "b", "c", "copy"))
    first = fingerprint([Sample(a, b), Sample(c)])
    inside = b"".join(hashlib.sha256(p.read_bytes()).digest() for p in (a, b, c))
    assert first == hashlib.sha256(inside).hexdigest() == fingerprint([Sample(copy, b), Sample(c)])
    assert fingerprint([Sample(c), Sample(a, b)]) != first


def test_prediction_table_needs_no_masks(table, tmp_path):
    path = table("image,note\na.png,x\nb.png,\n")
    assert read_table(path, mask=None) == [Sample(tmp_path / "a.png"), Sample(tmp_path / "b.png")]
    with pytest.raises(DataError, match=r"data\.csv: expected a column 'mask', found image, note"):
        read_table(path)
    with pytest.raises(DataError, match=r"data\.csv:3: expected a path in 'note', found an empty cell"):
        read_table(path, image="note", mask=None)


@pytest.mark.parametrize("inside", ["images/", ""])
def test_prediction_folder_needs_no_masks(tmp_path, inside):
    folder = touch(tmp_path / "data", f"{inside}b.png", f"{inside}a.jpg", f"{inside}a.png")
    assert [s.image.name for s in read_table(folder, mask=None)] == ["a.jpg", "a.png", "b.png"]
    assert all(s.mask is None for s in read_table(folder, mask=None))


def test_key_is_the_cells_text(table, tmp_path):
    path = table("image,mask,scene,split\na.png,m.png,dusk ,?\ni/b.png,m.png,0,?\n")
    assert [s.key for s in read_table(path, split=None, key="scene")] == ["dusk ", "0"]
    assert [s.key for s in read_table(path, split=None, key="image")] == ["a.png", "i/b.png"]
    folder = touch(tmp_path / "data", "images/s/a.png", "masks/s/a.png")
    assert [s.key for s in read_table(folder, key="image")] == ["images/s/a.png"]
    with pytest.raises(DataError, match="data: expected a table with a column 'scene', found a folder"):
        read_table(folder, key="scene")
    with pytest.raises(DataError, match=r"data\.csv: expected a column 'place', found image, mask, scene, split"):
        read_table(path, split=None, key="place")
    with pytest.raises(DataError, match=r"data\.csv:3: expected a value in 'scene', found an empty cell"):
        read_table(table("image,mask,scene\na,b,c\na,b,\n"), key="scene")


def test_tables_describe_themselves(tmp_path):
    pandas = pytest.importorskip("pandas")
    lists = {"image": ["a"], "mask": ["b"]}
    tables = Tables(training=tmp_path / "x" / ".." / "t.csv", validation=lists, test=pandas.DataFrame(lists))
    assert tables.describe() == {
        "dataset": None,
        "training": str(tmp_path / "t.csv"),
        "validation": "table in memory (dict)",
        "test": "table in memory (DataFrame)",
    }
