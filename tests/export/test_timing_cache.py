"""Times of kernels between builds, by the doubles of TensorRT 10 and 11 (TensorRT for RTX keeps none)."""

import errno
import fcntl
import logging
import threading

import pytest

from segdeploy.export import timing_cache
from segdeploy.runtime.gpu import Gpu, current_gpu
from segdeploy.runtime.trt import TENSORRT, load


@pytest.fixture
def config(tensorrt):
    """A function that makes a builder's configuration, as each process would have one."""
    flavour = load(TENSORRT)
    return lambda: flavour.builder().create_builder_config()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "times" / "mine.cache"


def time_a_kernel(config, name):
    """What a build does to its cache."""
    config.get_timing_cache()._state["entries"].add(name)


def kept(file):
    return set(file.read_text().split("\n")[1:])


def test_a_file_for_each_gpu_version_and_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path))
    gpus = [
        Gpu("NVIDIA A10/24", "8.6", "580.65.06"),
        Gpu("NVIDIA A10/24", "8.6", "590.1"),
        Gpu("NVIDIA L4", "8.9", "590.1"),
    ]
    files = {timing_cache.cache_file(gpu, version) for gpu in gpus for version in ("10.16.1.11", "11.4.0.106")}
    assert len(files) == 6
    assert {f.parent for f in files} == {tmp_path / "timing"}
    assert tmp_path / "timing" / "NVIDIA-A10-24_8.6_trt11.4.0.106_driver580.65.06.cache" in files


def test_builds_that_end_at_once_keep_what_both_timed(config, file):
    first, second = config(), config()
    assert timing_cache.attach(first, file)
    assert timing_cache.attach(second, file)
    time_a_kernel(first, "conv")
    time_a_kernel(second, "resize")
    timing_cache.keep(first, file)
    timing_cache.keep(second, file)
    assert kept(file) == {"conv", "resize"}
    third = config()
    assert timing_cache.attach(third, file)
    assert third.get_timing_cache()._state["entries"] == {"conv", "resize"}


def test_one_at_a_time(config, file):
    mine = config()
    timing_cache.attach(mine, file)
    time_a_kernel(mine, "conv")
    file.parent.mkdir()
    with file.with_suffix(".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        keeping = threading.Thread(target=timing_cache.keep, args=(mine, file))
        keeping.start()
        keeping.join(0.3)
        assert keeping.is_alive()
        assert not file.exists()
        fcntl.flock(other, fcntl.LOCK_UN)
        keeping.join(10)
    assert kept(file) == {"conv"}


@pytest.mark.parametrize("foreign", ["junk", "another GPU"])
def test_what_does_not_fit_is_left_aside_and_replaced(config, file, tensorrt, foreign):
    file.parent.mkdir()
    if foreign == "junk":
        file.write_bytes(b"\xffjunk")
    else:
        tensorrt.device.name = "another"
        file.write_bytes(bytes(config().create_timing_cache(b"").serialize()) + b"\ntheirs")
        tensorrt.device.name = "Double RTX"
    mine = config()
    assert timing_cache.attach(mine, file)
    assert mine.get_timing_cache()._state["entries"] == set()
    time_a_kernel(mine, "conv")
    timing_cache.keep(mine, file)
    assert kept(file) == {"conv"}


def test_a_full_disk_costs_no_build(config, file, monkeypatch, caplog):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    caplog.set_level(logging.INFO, "segdeploy")
    mine = config()
    timing_cache.attach(mine, file)
    with monkeypatch.context() as patch:
        patch.setattr("segdeploy.files.os.fsync", full)
        timing_cache.keep(mine, file)
    assert not file.exists()
    assert "the timing cache is not kept" in caplog.text
    assert "No space left on device" in caplog.text


def test_a_file_that_cannot_be_read_costs_no_build(config, file):
    file.mkdir(parents=True)
    mine = config()
    assert timing_cache.attach(mine, file)
    timing_cache.keep(mine, file)


def test_a_folder_that_cannot_be_written_costs_no_build(config, tmp_path):
    (tmp_path / "file").write_text("")
    mine = config()
    assert timing_cache.attach(mine, tmp_path / "file" / "x.cache")
    timing_cache.keep(mine, tmp_path / "file" / "x.cache")
    assert current_gpu() is not None
