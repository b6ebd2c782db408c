"""Files written whole or not at all, and fingerprints of them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.errors import SegdeployError

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_full(error: BaseException) -> bool:
    """Whether the error says that a disk, a quota or the largest size of a file is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on a clean exit it becomes `path` in one step.

    The bytes are on the disk (fsync) before the rename, so a crash at any moment leaves either the
    old file or the new one. On an exception the temporary file is removed.

    Raises:
        SegdeployError: the folder cannot be made, or not be written to.
    """
    part = path.with_name(f".{path.name[:40]}.{os.urandom(8).hex()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)  # not mkstemp: its files are private, and no thread can ask for the umask safely
        mode = part.stat().st_mode
    except OSError as e:
        raise SegdeployError(f"{path}: cannot be written: {e.strerror or e}") from e
    try:
        yield part
        part.chmod(mode)  # safetensors puts a private file in its place
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except BaseException as e:
        with suppress(FileNotFoundError):
            part.unlink()
        if isinstance(e, OSError) and is_full(e):
            raise SegdeployError(f"{path}: cannot be written: {e.strerror}") from e
        raise


def is_filled(folder: Path) -> bool:
    """Whether something is at `folder` that is not an empty folder."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place at the end; on an exception `output` is as it was.

    Raises:
        SegdeployError: the folder cannot be made.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as e:
        raise SegdeployError(f"{output}: cannot be written: {e.strerror or e}") from e
    try:
        yield folder
        folder.chmod(0o755)
        if output.exists():
            old = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.old."))
            output.rename(old / "kept")
            try:
                folder.rename(output)
            except OSError:
                (old / "kept").rename(output)
                raise
            finally:
                shutil.rmtree(old)
        else:
            folder.rename(output)
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to `path` atomically, and return `path`."""
    with replacing(path) as part:
        part.write_bytes(content)
    return path


def write_text(path: Path, content: str) -> Path:
    """Write UTF-8 text to `path` atomically, and return `path`."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON to `path` atomically, and return `path`; NaN is refused."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as lower-case hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def next_free(folder: Path) -> Path:
    """`folder` itself if it does not exist, else `folder_0`, `folder_1`, ... (Ludwig's way of naming runs)."""
    if not folder.exists():
        return folder
    n = 0
    while (candidate := folder.with_name(f"{folder.name}_{n}")).exists():
        n += 1
    return candidate
