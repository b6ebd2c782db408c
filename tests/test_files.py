import hashlib
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch

from segdeploy import files
from segdeploy.checkpoint import save_weights
from segdeploy.errors import SegdeployError

OLD = b"old bytes"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(OLD)
    return path


def test_writes_replace_what_was_there(path):
    assert files.write_bytes(path, b"new") == path
    assert path.read_bytes() == b"new"
    files.write_text(path, "naïve")
    assert path.read_bytes() == "naïve".encode()
    files.write_json(path, {"a": [1, None]})
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert list(path.parent.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    files.write_bytes(tmp_path / "a" / "b" / "c.bin", b"x")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"x"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_leaves_the_old_file_and_nothing_else(path, error):
    def interrupted():
        with files.replacing(path) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


def test_value_that_is_no_json_leaves_the_old_file(path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    assert path.read_bytes() == OLD


def test_kill_in_the_middle_leaves_the_old_file(path):
    code = f"""
import sys, time
from pathlib import Path
from segdeploy.files import replacing
with replacing(Path({str(path)!r})) as part:
    part.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    files.write_bytes(path, b"new")  # what the killed process left behind is in nobody's way
    assert path.read_bytes() == b"new"


def test_bytes_reach_the_disk_before_the_name(path, monkeypatch):
    calls = []
    monkeypatch.setattr(files.os, "fsync", lambda fd: calls.append(path.read_bytes()))
    files.write_bytes(path, b"new")
    assert calls == [OLD]


def test_others_may_read_as_the_umask_says(path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(files.os, "umask")  # to look at it is to change it for a moment, under other threads' feet
            files.write_bytes(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_others_may_read_weights_too(tmp_path):
    path = tmp_path / "weights.safetensors"
    before = os.umask(0o022)
    try:
        save_weights(path, torch.nn.Linear(2, 2), {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_longest_names(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    assert files.write_bytes(path, b"x").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["model.bin/x.png", "model.bin/a/b/x.png"])
def test_folder_that_is_a_file(path, name):
    with pytest.raises(SegdeployError, match=rf"{name}: cannot be written: "):
        files.write_bytes(path.parent / name, b"x")


@pytest.mark.parametrize("name", ["model.bin/run", "model.bin/a/b/run"])
def test_new_folder_in_a_file(path, name):
    with pytest.raises(SegdeployError, match=rf"{name}: cannot be written: "), files.new_folder(path.parent / name):
        raise AssertionError("was entered")


def test_sha256(path):
    assert files.sha256(path) == hashlib.sha256(OLD).hexdigest()


def test_next_free(tmp_path):
    folder = tmp_path / "run"
    for name in ("run", "run_0", "run_1"):
        found = files.next_free(folder)
        assert found == tmp_path / name
        found.mkdir()
    (tmp_path / "file").touch()
    assert files.next_free(tmp_path / "file") == tmp_path / "file_0"
