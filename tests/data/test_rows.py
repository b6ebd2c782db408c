"""The same table in every form gives the same samples; pandas' own writers are the reference."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segdeploy.data.rows import cell_text
from segdeploy.data.table import Sample, read_table
from segdeploy.errors import DataError, MissingPartError

LISTS = {"image": ["i/a.png", "i/b, c.png", "ä.png"], "mask": ["m/a.png", "/abs/b.png", "m.png"], "split": [0, 1, 2]}
RECORDS = [dict(zip(LISTS, row, strict=True)) for row in zip(*LISTS.values(), strict=True)]


def expected(folder):
    parts = ("training", "validation", "test")
    return [Sample(folder / i, folder / m, p) for i, m, p in zip(LISTS["image"], LISTS["mask"], parts, strict=True)]


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


def test_in_memory_paths_are_relative_to_the_working_directory(pandas):
    arrays = {name: np.array(cells) for name, cells in LISTS.items()}
    for table in (LISTS, arrays | {"image": tuple(LISTS["image"])}, pandas.DataFrame(LISTS)):
        assert read_table(table) == expected(Path())
    paths = {name: [Path(c) for c in LISTS[name]] for name in ("image", "mask")}
    assert read_table(LISTS | paths) == expected(Path())
    assert read_table(pandas.DataFrame(LISTS | paths).set_index("split").reset_index()) == expected(Path())


@pytest.mark.parametrize("name", ["t.tsv", "t.json", "columns.json", "t.jsonl", "t.JSONL", "t.csv", "t.txt"])
def test_text_files(pandas, tmp_path, name):
    path, frame = tmp_path / name, pandas.DataFrame(LISTS)
    match name.rpartition(".")[2].lower():
        case "json":
            path.write_text(json.dumps(LISTS) if "columns" in name else frame.to_json(orient="records"))
        case "jsonl":
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
        case suffix:
            frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    assert read_table(path) == read_table(str(path)) == expected(tmp_path)


@pytest.mark.parametrize(("suffix", "engine"), [("parquet", "pyarrow"), ("feather", "pyarrow"), ("xlsx", "openpyxl")])
def test_files_by_pandas(pandas, tmp_path, suffix, engine):
    pytest.importorskip(engine)
    path, frame = tmp_path / f"t.{suffix}", pandas.DataFrame(LISTS | {"scene": ["NA", "null", "x"]})
    {"parquet": frame.to_parquet, "feather": frame.to_feather, "xlsx": lambda p: frame.to_excel(p, index=False)}[
        suffix
    ](path)
    assert read_table(path) == expected(tmp_path)
    assert [s.key for s in read_table(path, key="scene")] == ["NA", "null", "x"]  # words, not gaps
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match=rf"t\.{suffix}: (expected a \.{suffix} table|cannot be read)"):
        read_table(path)


@pytest.mark.parametrize("suffix", ["parquet", "feather", "xlsx"])
def test_files_that_need_pandas_say_so(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pandas", None)  # what an absent package looks like to an import
    with pytest.raises(MissingPartError, match=rf"t\.{suffix}: \.{suffix} needs pandas and \w+; `pip install"):
        read_table(path)


def test_pandas_is_not_imported_for_other_tables(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(RECORDS))
    code = (
        "import sys; from pathlib import Path; from segdeploy.data.table import read_table\n"
        f"assert len(read_table(Path({str(tmp_path / 't.json')!r}))) == 3 == len(read_table({LISTS!r}))\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cells():
    pandas = pytest.importorskip("pandas")
    empty = [None, float("nan"), np.float64("nan"), pandas.NA, pandas.NaT, ""]
    assert [cell_text(value) for value in empty] == [""] * len(empty)
    assert [cell_text(v) for v in (0, 1.0, np.int64(2), np.float64(3), 0.5, "nan", True)] == [
        *("0", "1", "2", "3", "0.5", "nan", "True")
    ]


def test_gaps_in_a_frame_are_empty_cells(pandas):
    """A column of whole numbers with a gap holds floats."""
    frame = pandas.DataFrame(LISTS | {"split": [0, None, 2]})
    assert [s.part for s in read_table(frame)] == ["training", None, "test"]
    with pytest.raises(DataError, match=r"table in memory \(DataFrame\)\[1\]: expected a value in 'split'"):
        read_table(frame, key="split")
    with pytest.raises(DataError, match=r"\(DataFrame\)\[2\]: expected a path in 'image' and 'mask', found an empty"):
        read_table(pandas.DataFrame(LISTS | {"mask": ["a", "b", None]}))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", "[{]", r"t\.json: expected a JSON file in UTF-8"),
        ("t.json", "[" * 100_000, r"t\.json: expected a JSON file in UTF-8"),
        ("t.json", "3", r"t\.json: expected a list of records or an object of lists, found a int"),
        ("t.json", "[]", r"t\.json: expected a column 'image', found none"),
        ("t.json", '{"image": {"0": "a"}, "mask": {"0": "b"}}', r"t\.json: expected a list of cells in 'image'"),
        ("t.json", '{"image": ["a"], "mask": []}', r"equal length, but 'image' has 1, 'mask' has 0"),
        ("t.json", '{"image": [], "mask": []}', r"t\.json: expected at least one row"),
        ("t.json", '[{"image": "a", "mask": "b"}, {"image": "c"}]', r"t\.json\[1\]: expected a path in 'image' and 'm"),
        ("t.json", '[{"image": "a", "mask": ["b"]}]', r"t\.json\[0\]: expected a path in 'mask', found a list"),
        ("t.json", '[{"image": "a", "mask": "b"}, "c"]', r"t\.json\[1\]: expected a record such as"),
        ("t.jsonl", '{"image": "a", "mask": "b"}\n\n{"image": "a"}\n', r"t\.jsonl:3: expected a path"),
        ("t.jsonl", '{"image": "a"\n', r"t\.jsonl: expected a JSON Lines file in UTF-8"),
        ("t.tsv", "image,mask\na,b\n", r"t\.tsv: expected a column 'image', found image,mask"),
    ],
)
def test_mistakes_in_files(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"image": "a.png", "mask": ["b"]},
            r"table in memory \(dict\): expected a list of cells in 'image', found a str",
        ),
        ({"image": ["a"], "label": ["b"]}, r"table in memory \(dict\): expected a column 'mask', found image, label"),
        ({"image": [np.zeros(3)], "mask": ["b"]}, r"\[0\]: expected a path in 'image', found a ndarray"),
        ({}, "expected a column 'image', found none"),
        (7, "expected a table .a path, a dict of lists or a DataFrame., got a int"),
    ],
)
def test_mistakes_in_memory(table, said):
    with pytest.raises(DataError, match=said):
        read_table(table)
