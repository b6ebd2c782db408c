"""What goes in comes out, from memory and from disk; the file leaves nothing behind, and a full disk stops nobody."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from segdeploy.config.preprocessing import Cache
from segdeploy.data import cache as module
from segdeploy.data.cache import SampleCache, open_cache, record_bytes, temporary_folder

SIZE = (16, 24)
BYTES = 16 * 24 * 4


def pair(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), rng.integers(0, 256, SIZE, dtype=np.uint8)


def same(found, i):
    return found is not None and all(np.array_equal(a, b) for a, b in zip(found, pair(i), strict=True))


@pytest.fixture(params=["memory", "disk"])
def folder(request, tmp_path):
    return tmp_path if request.param == "disk" else None


def test_records_come_back(folder):
    cache = SampleCache(5, SIZE, folder)
    order = [3, 0, 4]
    for i in order:
        assert cache.get(i) is None
        cache.put(i, *pair(i))
    assert all(same(cache.get(i), i) for i in order)
    assert [cache.get(i) for i in (1, 2)] == [None, None]
    image, mask = cache.get(3)
    assert (image.shape, mask.shape, image.dtype, mask.dtype) == ((*SIZE, 3), SIZE, np.uint8, np.uint8)
    assert not image.flags.writeable
    assert not mask.flags.writeable
    assert record_bytes(SIZE) == image.nbytes + mask.nbytes == BYTES


def test_samples_that_have_no_room_are_left_out(folder):
    cache = SampleCache(2, SIZE, folder)
    for i in range(4):
        cache.put(i, *pair(i))
    assert same(cache.get(1), 1)
    assert cache.get(2) is cache.get(3) is None


def test_parts_of_larger_arrays_can_be_put(folder):
    cache = SampleCache(1, SIZE, folder)
    wide = np.random.default_rng(0).integers(0, 256, (16, 48, 3), dtype=np.uint8)
    cache.put(0, wide[:, ::2], wide[:, 1::2, 0])
    image, mask = cache.get(0)
    np.testing.assert_array_equal(image, wide[:, ::2])
    np.testing.assert_array_equal(mask, wide[:, 1::2, 0])


def test_threads_may_fill_the_same_rows(folder):
    cache = SampleCache(40, SIZE, folder)

    def work(seed):
        wrong = 0
        for i in np.random.default_rng(seed).permutation(40).tolist() * 3:
            found = cache.get(i)
            if found is None:
                cache.put(i, *pair(i))
            else:
                wrong += not same(found, i)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 0
    assert all(same(cache.get(i), i) for i in range(40))


def test_threads_that_fill_different_rows_do_not_mix_them_up(folder, request):
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    size = (256, 256)  # writes that are long enough for others to come between
    cache = SampleCache(160, size, folder)

    def work(first):
        for i in range(first, 160, 4):
            cache.put(i, np.full((*size, 3), i, np.uint8), np.full(size, i, np.uint8))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert all((cache.get(i)[0] == i).all() and (cache.get(i)[1] == i).all() for i in range(160))


@pytest.mark.skipif(os.name != "posix", reason="blocks of a sparse file are a matter of POSIX")
def test_file_is_sparse_and_has_no_name(tmp_path):
    cache = SampleCache(100_000, (64, 64), tmp_path)
    cache.put(99_999, np.ones((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8))
    status = os.fstat(cache._file.fileno())
    assert status.st_size == 100_000 * 64 * 64 * 4
    assert status.st_blocks * 512 < 1 << 20
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_after_a_kill(tmp_path):
    code = (
        "import sys; from pathlib import Path; import numpy as np; from segdeploy.data.cache import SampleCache\n"
        "cache = SampleCache(9, (16, 24), Path(sys.argv[1]))\n"
        "cache.put(0, np.ones((16, 24, 3), np.uint8), np.ones((16, 24), np.uint8))\n"
        "print('ready', cache.get(0)[0].sum(), flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"ready {16 * 24 * 3}\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def files_no_longer_than(size):
    """A write past the limit fails as one on a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_that_fills_up_is_said_once(tmp_path, caplog):
    cache = SampleCache(6, SIZE, tmp_path)
    with files_no_longer_than(3 * BYTES + 100):
        for i in range(6):
            cache.put(i, *pair(i))
    assert [same(cache.get(i), i) for i in range(3)] == [True] * 3
    assert [cache.get(i) for i in range(3, 6)] == [None] * 3
    cache.put(5, *pair(5))  # room again, but nobody tries
    assert cache.get(5) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "File too large; after 3 samples the others are decoded anew" in record.getMessage()


def gb(rows):
    return rows * BYTES / 1e9


@pytest.mark.parametrize(
    ("settings", "free_rows", "rows", "on_disk"),
    [
        ({}, 20, 10, False),  # all fits half of the memory
        ({}, 19, 10, True),
        ({"mode": "memory"}, 19, 9, False),
        ({"mode": "memory", "max_gb": gb(4)}, 1000, 4, False),
        ({"max_gb": gb(4)}, 1000, 4, False),  # the disk would hold no more
        ({"max_gb": gb(4)}, 6, 4, True),
        ({"mode": "disk"}, 1000, 10, True),
        ({"mode": "disk", "max_gb": gb(4)}, 1000, 4, True),
        ({"mode": "none"}, 1000, 0, False),
    ],
)
def test_where_samples_are_kept(settings, free_rows, rows, on_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: free_rows * BYTES)
    cache = open_cache(10, SIZE, Cache(**settings, directory=str(tmp_path / "new" / "folder")))
    assert cache.rows == rows
    assert cache.folder == (tmp_path / "new" / "folder" if on_disk else None)


def test_disk_is_used_to_a_half_and_no_further_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    size = (1024, 1024)
    for most in (64 << 30, 5 * record_bytes(size)):
        monkeypatch.setattr(module, "DISK_BYTES", most)
        free = module.shutil.disk_usage(tmp_path).free
        rows = open_cache(1 << 20, size, Cache(directory=str(tmp_path))).rows
        assert rows == pytest.approx(min(free // 2, most) // record_bytes(size), rel=0.1)


def test_folder_that_cannot_be_used_is_said(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = open_cache(3, SIZE, Cache(mode="disk", directory=str(tmp_path / "file" / "below")))
    assert (cache.rows, cache.folder) == (3, None)
    (record,) = caplog.records
    assert "Not a directory; samples are kept in memory as far as they fit" in record.getMessage()


@pytest.mark.parametrize(
    ("rows", "count", "size", "said"),
    [
        (0, 9, SIZE, "cache: none; samples are decoded in each epoch"),
        (9, 9, SIZE, "cache: 9 samples, 0.0 MB, WHERE"),
        (1200, 1200, (512, 512), "cache: 1,200 samples, 1.3 GB, WHERE"),
        (1000, 1200, (64, 64), "cache: 1,000 of 1,200 samples, 16.4 MB, WHERE; the others are decoded in each epoch"),
    ],
)
def test_description(rows, count, size, said, folder):
    where = f"memory-mapped in {folder}" if folder else "in memory"
    assert SampleCache(rows, size, folder).describe(count) == said.replace("WHERE", where)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a folder that lies in memory")
def test_default_folder_lies_on_a_disk(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(Path(__file__).parent))
    assert temporary_folder() == Path(__file__).parent
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    assert temporary_folder() == Path("/var/tmp")
