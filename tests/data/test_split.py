"""Every cut is complete, disjoint and repeatable; stratified shares are held against scikit-learn."""

import csv
import hashlib
import json
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.model_selection import StratifiedShuffleSplit

from segdeploy.config import parse_config
from segdeploy.config.preprocessing import Split
from segdeploy.config.schema import RunConfig
from segdeploy.data.split import describe_split, read_parts, settle, split_samples, write_parts, written_parts
from segdeploy.data.table import PARTS, Sample, Tables
from segdeploy.errors import ConfigError, DataError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    return lambda text: write(tmp_path / "data.csv", text)


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
    said = (
        r"data\.csv:3: expected a value in"
        if split
        else r"data\.csv: expected 'split' to be filled in every row, found 2"
    )
    with pytest.raises(DataError, match=said):
        read_parts(Tables(dataset=path), config(**({"split": split} if split else {})))


def test_parts_must_not_be_empty(table):
    with pytest.raises(
        DataError,
        match=r"data\.csv: the validation part is empty after the fixed split of 2 row\(s\); .* name it in 'split'",
    ):
        read_parts(Tables(dataset=table("photo,mask,split\na,b,train\nc,d,test\n")), config())
    with pytest.raises(DataError, match=r"data\.csv: expected a column 'fold', found photo, mask"):
        read_parts(Tables(dataset=table("photo,mask\na,b\n")), config(split={"type": "fixed", "column": "fold"}))


def test_one_table_for_each_part(tmp_path):
    one, two = (write(tmp_path / n, f"photo,mask\n{n}.png,m.png\n") for n in ("one.csv", "two.csv"))
    parts = read_parts(Tables(training=one, validation=two, test=one), config())
    assert [parts[p][0].image.name for p in PARTS] == ["one.csv.png", "two.csv.png", "one.csv.png"]
    assert read_parts(Tables(training=one, validation=two), config())["test"] == []
    for tables in (Tables(), Tables(training=one), Tables(dataset=one, test=two)):
        with pytest.raises(DataError, match="--dataset"):
            read_parts(tables, config())


SHARES = st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.5, 0.0), (0.2, 0.7, 0.1), (0.29, 0.3, 0.41), (0.05, 0.05, 0.9)])


def keyed(counts):
    return [Sample(f"{key}{i}", key=str(key)) for key, n in enumerate(counts) for i in range(n)]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), SHARES, st.integers(0, 9))
def test_stratified_shares_are_within_one_row_of_each_value(counts, shares, seed):
    counts = [*counts, 40]
    samples = keyed(counts)
    split = Split(type="stratify", column="c", probabilities=shares)
    parts = split_samples(samples, split, seed, "t")
    assert parts == split_samples(samples, split, seed, "t")
    assert sorted((s for p in PARTS for s in parts[p]), key=samples.index) == samples
    found = {part: Counter(s.key for s in parts[part]) for part in PARTS}
    for key, count in enumerate(counts):
        assert found["training"][str(key)] >= 1
        for part, share in zip(PARTS, shares, strict=True):
            assert abs(found[part][str(key)] - share * count) < 1 + 1e-6
            assert share > 0 or not found[part][str(key)]


@pytest.mark.parametrize("counts", [(50, 30, 20), (5, 15, 80), (33, 33, 34), (2, 3, 4, 91)])
def test_stratified_split_against_scikit_learn(counts):
    samples = keyed(counts)
    parts = split_samples(samples, Split(type="stratify", column="c", probabilities=(0.6, 0.1, 0.3)), 0, "t")
    keys = np.array([s.key for s in samples])
    (theirs,) = StratifiedShuffleSplit(1, train_size=60, test_size=40, random_state=0).split(keys, keys)
    ours = (parts["training"], [*parts["validation"], *parts["test"]])
    for mine, yours in zip(ours, theirs, strict=True):
        mine, yours = Counter(s.key for s in mine), Counter(keys[yours].tolist())
        assert all(abs(mine[key] - yours[key]) <= 1 for key in yours)
    assert [len(parts[p]) for p in PARTS] == [60, 10, 30]


def test_many_rare_values_still_reach_every_part():
    """Each value alone would send its three rows to training and test; what is owed to validation is carried on."""
    parts = split_samples(keyed([3] * 100), Split(type="stratify", column="c"), 0, "t")
    assert [len(parts[p]) for p in PARTS] == [210, 30, 60]


def test_stratified_split_depends_on_the_seed():
    split = Split(type="stratify", column="c")
    assert split_samples(keyed([40]), split, 0, "t")["test"] != split_samples(keyed([40]), split, 1, "t")["test"]


@given(st.sets(st.integers(0, 10**6), min_size=150, max_size=250), SHARES, st.randoms())
def test_hash_split_depends_on_the_cell_alone(keys, shares, random):
    split = Split(type="hash", probabilities=shares)
    samples = [Sample(str(i), key=f"images/{key}.png") for i, key in enumerate(keys)]
    # None of these parts is empty: each has 5 % of 150 rows or more.
    parts = split_samples(samples, split, 0, "t")
    where = {s: part for part in PARTS for s in parts[part]}
    for sample in samples:
        point = zlib.crc32(sample.key.encode()) / 2**32
        assert where[sample] == PARTS[0 if point < shares[0] else 1 if point < shares[0] + shares[1] else 2]
    more = [*samples, *(Sample(f"n{i}", key=f"new {i}") for i in range(50))]
    random.shuffle(more)
    again = split_samples(more, split, 1, "t")
    assert all(sample in again[part] for sample, part in where.items())


def test_hash_split_takes_the_image_as_it_is_written(table, tmp_path):
    lines = [f"i/{i}.png,m.png,{i % 30}\n" for i in range(60)]
    parts = read_parts(Tables(dataset=table("photo,mask,scene\n" + "".join(lines))), config(split={"type": "hash"}))
    moved = tmp_path / "moved"
    moved.mkdir()
    other = write(moved / "t.csv", "photo,mask,scene\n" + "".join(lines[::-1]))
    again = read_parts(Tables(dataset=other), config(split={"type": "hash"}))
    for part in PARTS:
        assert {s.image.name for s in parts[part]} == {s.image.name for s in again[part]}
        assert all(s.key == f"i/{s.image.name}" for s in parts[part])
    shares = (0.4, 0.3, 0.3)
    by_scene = read_parts(
        Tables(dataset=other), config(split={"type": "hash", "column": "scene", "probabilities": shares})
    )
    assert all(len({p for p in PARTS for s in by_scene[p] if s.key == str(k)}) == 1 for k in range(30))


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"type": "datetime"}, "datetime is not supported"),
        ({"type": "stratify"}, "stratify needs `column`"),
        ({"type": "random", "column": "scene"}, "random takes no `column`"),
        ({"probabilities": (0.0, 0.5, 0.5)}, "leave nothing for training"),
        ({"probabilities": (0.5, 0.5, 0.5)}, "add up to 1.5"),
        ({"type": "by_magic"}, "'random', 'fixed', 'stratify' or 'hash'"),
    ],
)
def test_splits_that_make_no_sense(split, said):
    with pytest.raises(ValidationError, match=said):
        Split(**split)


def test_refused_split_is_one_line():
    text = json.dumps(
        {
            "input_features": [
                {"name": "i", "type": "image", "preprocessing": {"height": 64, "width": 64}, "encoder": "unet"}
            ],
            "output_features": [{"name": "m", "type": "image", "preprocessing": {"num_classes": 2}, "decoder": "unet"}],
            "preprocessing": {"split": {"type": "datetime", "column": "day"}},
        }
    )
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c.yaml")
    assert str(caught.value).startswith("c.yaml:1: preprocessing.split.type: datetime is not supported; write each")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["random", "stratify", "hash"])
def test_part_that_would_be_empty_is_refused(kind):
    split = Split(type=kind, column="c" if kind == "stratify" else None)
    with pytest.raises(DataError, match=rf"^t: the \w+ part is empty after the {kind} split of 2 row"):
        split_samples([Sample("a", key="a"), Sample("b", key="a")], split, 0, "t")
    with pytest.raises(DataError, match="the test part is empty"):
        split_samples(keyed([3]), Split(probabilities=(0.5, 0.4, 0.1)), 0, "t")
    assert not split_samples(keyed([4]), Split(probabilities=(0.5, 0.5, 0.0)), 0, "t")["test"]


def test_column_of_a_stratified_split_must_be_there(table):
    with pytest.raises(DataError, match=r"data\.csv: expected a column 'scene', found photo, mask"):
        read_parts(Tables(dataset=table("photo,mask\na,b\n")), config(split={"type": "stratify", "column": "scene"}))


def test_column_split_is_free_for_other_uses(table):
    path = table("photo,mask,split\n" + "".join(f"{i},m,{'ab'[i % 2]}\n" for i in range(40)))
    parts = read_parts(Tables(dataset=path), config(split={"type": "stratify", "column": "split"}))
    assert [Counter(s.key for s in parts[p]) for p in PARTS] == [
        {"a": 14, "b": 14},
        {"a": 2, "b": 2},
        {"a": 4, "b": 4},
    ]


@pytest.mark.parametrize(
    ("split", "head", "expected"),
    [
        (None, "split", ("fixed", "split", None, None)),
        (None, "other", ("random", None, [0.7, 0.1, 0.2], 42)),
        ({"type": "fixed", "column": "fold"}, "fold", ("fixed", "fold", None, None)),
        ({"type": "stratify", "column": "fold"}, "fold", ("stratify", "fold", [0.7, 0.1, 0.2], 42)),
        ({"type": "hash"}, "fold", ("hash", "photo", [0.7, 0.1, 0.2], None)),
    ],
)
def test_split_is_described(table, split, head, expected):
    path = table(f"photo,mask,{head}\n" + "".join(f"{i}.png,m.png,{i % 3}\n" for i in range(60)))
    settings, tables = config(**({"split": split} if split else {})), Tables(dataset=path)
    parts = read_parts(tables, settings)
    about = describe_split(tables, settings, parts)
    assert (about["type"], about["column"], about["probabilities"], about["seed"]) == expected
    assert about["samples"] == {p: len(parts[p]) for p in PARTS}
    assert sum(about["samples"].values()) == 60
    separate = Tables(training=path, validation=path)
    assert describe_split(separate, settings, read_parts(separate, settings)) == {
        "type": "tables",
        "column": None,
        "probabilities": None,
        "seed": None,
        "samples": {"training": 60, "validation": 60, "test": 0},
    }


def test_settling():
    assert settle(None, [Sample("a", part="test")]) == Split(type="fixed")
    assert settle(None, [Sample("a")]) == Split()
    assert settle(Split(type="hash"), [Sample("a", part="test")]) == Split(type="hash")


@pytest.mark.parametrize("with_test", [False, True])
def test_written_parts_are_read_back(tmp_path, with_test):
    mine = [Sample(tmp_path / f"{i}, ä.png", tmp_path / "m.png") for i in range(3)]
    parts = {"training": mine, "validation": mine[:1], "test": mine[1:] if with_test else []}
    digests = write_parts(tmp_path / "splits", parts, "photo", "mask")
    for part in PARTS:
        file = tmp_path / "splits" / f"{part}.csv"
        assert digests[part] == hashlib.sha256(file.read_bytes()).hexdigest()
        with file.open(newline="", encoding="utf-8") as handle:
            assert [row["photo"] for row in csv.DictReader(handle)] == [str(s.image) for s in parts[part]]
    assert read_parts(written_parts(tmp_path / "splits"), config()) == parts
