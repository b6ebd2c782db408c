"""Samples that are decoded once and kept, in memory or in a file that is mapped into memory.

All samples have the network's size, so all records have one length: height * width * 3 bytes of image and
height * width bytes of mask.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segdeploy.environment import free_memory

if TYPE_CHECKING:
    from io import FileIO

    from numpy.typing import NDArray

    from segdeploy.config.preprocessing import Cache

    Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

log = logging.getLogger(__name__)

DISK_BYTES = 64 << 30
"""At most this much on disk unless `max_gb` says otherwise, and at most half of what is free."""


class SampleCache:
    """Room for the first `rows` samples; a row is filled when its sample is put there.

    Threads need not agree on who fills a row: they write the same bytes, and the row is marked last. Records are
    read through the mapping but written by `pwrite`, because a full disk is then an error that can be caught, and
    not the signal that ends a process which stores into a mapping. Nothing but the file and the marks would have
    to be shared for several processes to use one cache.

    Args:
        rows: how many samples there is room for.
        size: (height, width) of every sample, pixels.
        folder: where the file lies; None: in memory. The file has no name there (or loses it at once), so that it
            is gone when the process ends, however it ends.

    Raises:
        OSError: a file cannot be made in `folder`.
    """

    def __init__(self, rows: int, size: tuple[int, int], folder: Path | None = None) -> None:
        self.rows, self.size, self.folder = rows, size, folder
        self._filled = np.zeros(rows, bool)
        self._file: FileIO | None = None
        self._full = False
        shape = (rows, record_bytes(size))
        if folder is None or not rows:
            self._records = np.empty(shape, np.uint8)  # the system gives memory to a page when it is first written
            return
        if not hasattr(os, "pwrite"):
            raise OSError("a cache on disk needs a POSIX system")
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115
        self._file.truncate(rows * shape[1])  # sparse: blocks are taken as rows are filled
        mapped = mmap.mmap(self._file.fileno(), rows * shape[1], access=mmap.ACCESS_READ)
        self._records = np.frombuffer(mapped, np.uint8).reshape(shape)

    def get(self, index: int) -> Pair | None:
        """Image (height, width, 3) and mask (height, width), both read-only, or None where there is no such row yet."""
        if index >= self.rows or not self._filled[index]:
            return None
        record = self._records[index]
        record.flags.writeable = False
        height, width = self.size
        return record[: -height * width].reshape(height, width, 3), record[-height * width :].reshape(height, width)

    def put(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        """Keep a sample, if there is room for it; a disk that is full is said once."""
        if index >= self.rows:
            return
        record = np.concatenate([image.reshape(-1), mask.reshape(-1)])
        if self._file is None:
            self._records[index] = record
        elif not self._write(self._file, index, record):
            return
        self._filled[index] = True

    def _write(self, file: FileIO, index: int, record: NDArray[np.uint8]) -> bool:
        if self._full:
            return False
        left, place = record.data, index * record.nbytes
        try:
            while left:  # a disk that is nearly full takes a part
                written = os.pwrite(file.fileno(), left, place)
                left, place = left[written:], place + written
        except OSError as e:
            self._full = True
            kept = int(self._filled.sum())
            log.warning("cache: %s: %s; after %d samples the others are decoded anew", self.folder, e.strerror, kept)
            return False
        return True

    def describe(self, count: int) -> str:
        """One line on where `count` samples are kept."""
        if not self.rows:
            return "cache: none; samples are decoded in each epoch"
        held = self.rows * record_bytes(self.size)
        amount = f"{held / 1e9:.1f} GB" if held >= 1e9 else f"{held / 1e6:.1f} MB"
        where = "in memory" if self.folder is None else f"memory-mapped in {self.folder}"
        if self.rows < count:
            return f"cache: {self.rows:,} of {count:,} samples, {amount}, {where}; the others are decoded in each epoch"
        return f"cache: {count:,} samples, {amount}, {where}"


def record_bytes(size: tuple[int, int]) -> int:
    """Length of a sample of (height, width) pixels, in bytes."""
    return size[0] * size[1] * 4


def open_cache(count: int, size: tuple[int, int], settings: Cache, sharers: int = 1) -> SampleCache:
    """A cache for `count` samples of `size` (height, width), where there is room for them; see `config.Cache`.

    With `sharers` processes on a machine each takes its part of the room.

    A folder that cannot be used is said, and memory serves instead.
    """
    if settings.mode == "none":
        return SampleCache(0, size)
    limit = None if settings.max_gb is None else round(settings.max_gb * 1e9)

    def fitting(free: int, most: int | None) -> int:
        room = free // 2 if most is None else min(free // 2, most)
        return min(count, room // sharers // record_bytes(size))

    in_memory = fitting(free_memory(), limit)
    if settings.mode == "disk" or (settings.mode == "auto" and in_memory < count):
        folder = Path(settings.directory) if settings.directory else temporary_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            on_disk = fitting(shutil.disk_usage(folder).free, limit or DISK_BYTES)
            if settings.mode == "disk" or on_disk > in_memory:
                return SampleCache(on_disk, size, folder.resolve())
        except OSError as e:
            log.warning("cache: %s: %s; samples are kept in memory as far as they fit", folder, e.strerror or e)
    return SampleCache(in_memory, size)


def temporary_folder() -> Path:
    """The system's folder for temporary files (TMPDIR), or /var/tmp where that one lies in memory."""
    folder, other = Path(tempfile.gettempdir()), Path("/var/tmp")
    return other if _lies_in_memory(folder) and other.is_dir() else folder


def _lies_in_memory(folder: Path) -> bool:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:  # not Linux
        return False
    above = {Path(place): kind for place, kind in mounts if folder.resolve().is_relative_to(place)}
    return bool(above) and above[max(above, key=lambda place: len(place.parts))] in ("tmpfs", "ramfs")
