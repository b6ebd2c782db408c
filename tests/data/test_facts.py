"""What a file holds, against Pillow and plain loops; and that a file that has not changed is not opened again."""

import os
import sqlite3
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segdeploy.data import facts_cache
from segdeploy.data.facts import MANY, Facts, distinct, read_facts, read_image_facts, read_mask_facts, read_part_facts
from segdeploy.data.facts_cache import FactsCache
from segdeploy.data.table import Sample

RED, GREEN = (255, 0, 0), (0, 255, 0)
LONG_AGO = 1_600_000_000


def put(path, values, mode=None, **settings):
    picture = values if isinstance(values, Image.Image) else Image.fromarray(np.array(values, mode or np.uint8))
    picture.save(path, **settings)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 5)))
def test_distinct_values_by_a_plain_loop(codes):
    counts, first = {}, {}
    for row in range(codes.shape[0]):
        for column in range(codes.shape[1]):
            value = int(codes[row, column])
            counts[value] = counts.get(value, 0) + 1
            first.setdefault(value, row * codes.shape[1] + column)
    values, pixels, places = distinct(codes)
    assert values.tolist() == sorted(counts)
    assert pixels.tolist() == [counts[v] for v in sorted(counts)]
    assert places.tolist() == [first[v] for v in sorted(counts)]


def test_mask_of_ids(tmp_path):
    facts = read_mask_facts(put(tmp_path / "m.png", [[0, 0, 7], [7, 255, 0]]))
    assert (facts.size, facts.format, facts.mode, facts.kind) == ((2, 3), "PNG", "L", "values")
    assert (facts.codes, facts.pixels, facts.first, facts.distinct) == ((0, 7, 255), (3, 2, 1), (0, 2, 4), 3)
    assert facts.shown == (0, 0x070707, 0xFFFFFF)


def test_mask_of_colours(tmp_path):
    facts = read_mask_facts(put(tmp_path / "m.png", [[RED, GREEN, RED]]))
    assert (facts.kind, facts.codes, facts.pixels, facts.first) == ("colors", (0x00FF00, 0xFF0000), (1, 2), (1, 0))
    assert facts.colors() == facts.codes


def test_palette_transparency_and_depth(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    facts = read_mask_facts(put(tmp_path / "p.png", palette))
    assert (facts.mode, facts.codes, facts.colors()) == ("P", (0, 1), (0, 0xFF0000))
    assert read_mask_facts(put(tmp_path / "a.png", [[(1, 1, 1, 255), (2, 2, 2, 0)]])).hidden == 1
    deep = read_mask_facts(put(tmp_path / "d.png", [[0, 40000]], np.uint16))
    assert (deep.codes, deep.colors()) == ((0, 40000), ())
    one_bit = read_mask_facts(put(tmp_path / "b.png", Image.new("1", (3, 1), 1)))
    assert (one_bit.codes, one_bit.colors()) == ((1,), (0xFFFFFF,))


def test_many_colours_are_counted_and_the_commonest_kept(tmp_path):
    codes = np.arange(MANY + 10, dtype=np.uint32)
    rgb = np.stack([codes >> 16, codes >> 8, codes], -1).astype(np.uint8)[None].repeat(2, 0)
    rgb[1, :20] = (255, 255, 255)
    facts = read_mask_facts(put(tmp_path / "m.png", rgb))
    assert (facts.distinct, len(facts.codes)) == (MANY + 11, MANY)
    assert facts.pixels[facts.codes.index(0xFFFFFF)] == 20
    assert facts.codes == tuple(sorted(facts.codes))


def test_a_photograph_in_the_place_of_a_mask_takes_little_memory(tmp_path):
    path = put(tmp_path / "m.png", np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8))
    read_mask_facts(path)
    tracemalloc.start()
    kept = [read_mask_facts(path) for _ in range(8)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    assert size < 64 << 10


def test_equal_pixels_have_equal_digests(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (5, 6), dtype=np.uint8)
    rgb = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    digests = {
        name: read_image_facts(put(tmp_path / name, values)).digest
        for name, values in {
            "grey.png": grey, "grey.tif": grey, "grey3.png": grey[..., None].repeat(3, 2),
            "rgb.png": rgb, "rgb.bmp": rgb, "turned.png": np.ascontiguousarray(rgb.reshape(6, 5, 3)),
        }.items()
    }  # fmt: skip
    assert digests["grey.png"] == digests["grey.tif"] == digests["grey3.png"]
    assert digests["rgb.png"] == digests["rgb.bmp"]
    assert len(set(digests.values())) == 3
    assert read_mask_facts(tmp_path / "grey3.png").digest == digests["grey.png"]
    assert read_mask_facts(tmp_path / "rgb.png").digest == digests["rgb.png"]


def test_colours_of_an_image(tmp_path):
    assert read_image_facts(put(tmp_path / "a.png", [[RED, GREEN, RED]])).colors == 2
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert read_image_facts(put(tmp_path / "b.png", noise)).colors == 257


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "facts.sqlite"


@pytest.fixture
def samples(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    return [
        Sample(put(tmp_path / f"{i}.jpg", noise[i]), put(tmp_path / f"{i}.png", noise[i, ..., 0] % 3)) for i in range(3)
    ]


def read(samples, cache):
    steps = []
    found = read_facts(samples, lambda done, total: steps.append((done, total)), FactsCache(cache))
    count = len({s.image for s in samples}) + len({s.mask for s in samples if s.mask})
    assert steps == [(i + 1, count) for i in range(count)]
    return found


def test_known_files_are_not_opened_again(samples, cache):
    first = read(samples, cache)
    for sample in samples:
        for file in (sample.image, sample.mask):
            size = file.stat().st_size
            file.write_bytes(b"x" * size)  # the same path, size and time: what a stamp cannot tell
            os.utime(file, (LONG_AGO, LONG_AGO))
    assert read(samples, cache) == first
    os.utime(samples[1].mask, (LONG_AGO + 1, LONG_AGO + 1))
    again = read(samples, cache)
    assert "none of them" in again[1].mask
    assert [again[0], again[2], again[1].image] == [first[0], first[2], first[1].image]


def test_changed_files_are_read_again(samples, cache):
    read(samples, cache)
    put(samples[0].mask, [[2, 2]])
    assert read(samples, cache)[0].mask.codes == (2,)
    assert read(samples, cache)[0].mask.codes == (2,)


def test_faults_and_young_files_are_not_kept(samples, cache):
    samples[0].mask.write_bytes(b"no mask")
    os.utime(samples[0].mask, (LONG_AGO, LONG_AGO))
    os.utime(samples[1].mask)
    read(samples, cache)
    kept = {Path(p).name for (p,) in sqlite3.connect(cache).execute("SELECT path FROM facts")}
    assert kept == {"0.jpg", "1.jpg", "2.jpg", "2.png"}


@pytest.mark.parametrize("content", [b"no database", b"", b"SQLite format 3\0" + b"\0" * 100])
def test_broken_cache_is_made_anew(samples, cache, content):
    expected = read(samples, cache)
    cache.write_bytes(content)
    assert read(samples, cache) == expected
    assert sqlite3.connect(cache).execute("SELECT count(*) FROM facts").fetchone() == (6,)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"size": "large"}', "null"])
def test_rows_of_another_form_are_ignored(samples, cache, text):
    expected = read(samples, cache)
    with sqlite3.connect(cache) as connection:
        connection.execute("UPDATE facts SET fields = ?", (text,))
    assert read(samples, cache) == expected


def test_cache_that_cannot_be_written_costs_nothing(samples, tmp_path):
    (tmp_path / "file").write_text("")
    assert read(samples, tmp_path / "file" / "facts.sqlite")[0].mask.distinct == 3


def test_cache_is_bounded(samples, cache, monkeypatch):
    monkeypatch.setattr(facts_cache, "LIMIT_BYTES", 4096)
    expected = read(samples, cache)
    assert sqlite3.connect(cache).execute("SELECT count(*) FROM facts").fetchone() == (3,)
    assert read(samples, cache) == expected


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path))
    assert facts_cache.cache_folder() == tmp_path
    monkeypatch.delenv("SEGDEPLOY_CACHE")
    assert facts_cache.cache_folder().name == "segdeploy"


def test_parts_and_faults(samples, tmp_path):
    (tmp_path / "empty.png").touch()
    Image.new("CMYK", (2, 2)).save(tmp_path / "cmyk.tif")
    bad = [Sample(tmp_path / "none.jpg", tmp_path / "empty.png"), Sample(samples[0].image, tmp_path / "cmyk.tif")]
    found = read_part_facts({"training": samples, "test": bad, "none": []})
    assert {k: len(v) for k, v in found.items()} == {"training": 3, "test": 2, "none": 0}
    assert found["test"][0] == Facts(bad[0], "no such file", "the file is empty (0 bytes)")
    assert found["test"][1].image == found["training"][0].image
    assert found["test"][1].mask.startswith("expected one channel of class ids, found a CMYK picture")
