"""Memory that a training step frees and the next one asks for again."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of <malloc.h>, with glibc's own values to go back to: where its moving threshold ends up once large blocks were freed.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_DEFAULTS = {_TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Inside, freed memory stays with the process; afterwards what is free goes back to the system.

    glibc gives each freed block of more than 32 MB back to the kernel, and the step that asks for it again pays with a
    page fault for every 4 KiB, where huge pages are not always on. Nothing is changed where malloc is not glibc's, or
    where its environment variables say what it should do.
    """
    told = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(k.startswith("MALLOC_") for k in os.environ)
    if told or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    for option, value in _KEEPING.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
