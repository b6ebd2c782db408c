import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdeploy.config.schema import RunConfig, Split
from segdeploy.data.table import PARTS, Sample, Tables, find_images, fingerprint, read_parts, read_table, split_samples
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


def config(**preprocessing):
    image = {"name": "image", "type": "image", "preprocessing": {"height": 64, "width": 64}, "encoder": "timm"}
    mask = {"name": "mask", "type": "image", "preprocessing": {"num_classes": 3}, "decoder": "unet"}
    return RunConfig.model_validate(
        {
            "input_features": (image | {"column": "photo"},),
            "output_features": (mask,),
            "preprocessing": preprocessing,
        }
    )


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
    with pytest.raises(DataError, match=r"y\.csv: expected a CSV file or a folder with images/ and masks/"):
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
        (["images/a.png", "images/b.png", "masks/a.png"], r"1 file\(s\) without a partner; .* image 'b'"),
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


@given(
    st.integers(10, 200),
    st.integers(0, 2**31 - 1),
    st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.5, 0.0), (0.2, 0.7, 0.1)]),
)
def test_random_split_is_complete_disjoint_and_repeatable(count, seed, shares):
    samples = [Sample(str(i)) for i in range(count)]
    split = Split(probabilities=shares)
    parts = split_samples(samples, split, seed, "t")
    assert parts == split_samples(samples, split, seed, "t")
    assert sorted((s for p in PARTS for s in parts[p]), key=samples.index) == samples
    for part, share in zip(PARTS, shares, strict=True):
        assert abs(len(parts[part]) - share * count) <= 1
        assert parts[part] == sorted(parts[part], key=samples.index)


def test_random_split_depends_on_the_seed():
    splits = [split_samples([Sample(str(i)) for i in range(50)], None, seed, "t")["test"] for seed in (0, 1)]
    assert splits[0] != splits[1]


def test_split_column(table, tmp_path):
    path = table("photo,mask,split\n" + "".join(f"{i}.png,m.png,{i % 3}\n" for i in range(9)))
    parts = read_parts(Tables(dataset=path), config())
    assert {p: [int(s.image.stem) for s in parts[p]] for p in PARTS} == {
        "training": [0, 3, 6],
        "validation": [1, 4, 7],
        "test": [2, 5, 8],
    }
    by_chance = read_parts(Tables(dataset=path), config(split={"type": "random", "probabilities": (0.4, 0.4, 0.2)}))
    assert [len(by_chance[p]) for p in PARTS] == [4, 3, 2]


@pytest.mark.parametrize("split", [None, {"type": "fixed"}])
def test_split_column_with_gaps_is_refused(table, split):
    path = table("photo,mask,split\na,b,train\nc,d,\ne,f,val\n")
    with pytest.raises(DataError, match=r"data\.csv: expected 'split' to be filled in every row, found 2 of 3"):
        read_parts(Tables(dataset=path), config(**({"split": split} if split else {})))


def test_parts_must_not_be_empty(table):
    with pytest.raises(DataError, match=r"data\.csv: the validation part is empty"):
        read_parts(Tables(dataset=table("photo,mask,split\na,b,train\nc,d,test\n")), config())
    with pytest.raises(DataError, match="expected 'fold' to be filled in every row, found 0 of 1"):
        read_parts(Tables(dataset=table("photo,mask\na,b\n")), config(split={"type": "fixed", "column": "fold"}))


def test_one_table_for_each_part(tmp_path):
    one, two = (write(tmp_path / n, f"photo,mask\n{n}.png,m.png\n") for n in ("one.csv", "two.csv"))
    parts = read_parts(Tables(training=one, validation=two, test=one), config())
    assert [parts[p][0].image.name for p in PARTS] == ["one.csv.png", "two.csv.png", "one.csv.png"]
    assert read_parts(Tables(training=one, validation=two), config())["test"] == []
    for tables in (Tables(), Tables(training=one), Tables(dataset=one, test=two)):
        with pytest.raises(DataError, match="--dataset"):
            read_parts(tables, config())


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
