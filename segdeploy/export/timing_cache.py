"""How long kernels took on this GPU, kept between builds, so that the second build of a model takes a fraction.

One file for each GPU, TensorRT and driver: times of others would choose slow kernels. Several builds may end at
once, so the file is read, merged and replaced under a lock. TensorRT for RTX times nothing when it builds and has
made these calls empty; it keeps no cache.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segdeploy.data.facts_cache import cache_folder
from segdeploy.errors import SegdeployError
from segdeploy.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from segdeploy.runtime.gpu import Gpu

log = logging.getLogger(__name__)


def cache_file(gpu: Gpu, version: str) -> Path:
    """The file of this GPU, TensorRT `version` and driver, in the user's cache folder."""
    words = (gpu.name, gpu.compute_capability, f"trt{version}", f"driver{gpu.driver or gpu.cuda or '-unknown'}")
    return cache_folder() / "timing" / f"{'_'.join(re.sub(r'[^A-Za-z0-9.-]+', '-', w) for w in words)}.cache"


def attach(config: Any, file: Path) -> bool:
    """Let a builder's `config` start from what is kept in `file`; whether it writes down new times at all.

    A file that the library does not take is left aside and will be replaced.
    """
    try:
        kept = file.read_bytes()
    except FileNotFoundError:
        kept = b""
    except OSError as e:
        log.info("%s: cannot be read (%s); kernels are timed anew", file, e.strerror or e)
        kept = b""
    for blob in (kept, b"") if kept else (b"",):
        cache = config.create_timing_cache(blob)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return True
        if blob:
            log.info("%s: not a timing cache for this GPU; kernels are timed anew", file)
    log.info("TensorRT takes no timing cache; kernels are timed anew")
    return False


def keep(config: Any, file: Path) -> None:
    """Merge what the build has timed into `file`. Whatever goes wrong costs time in the next build, and is logged."""
    ours = config.get_timing_cache()
    if ours is None:
        return
    try:
        with _locked(file):
            if file.is_file():  # another build may have ended since `attach`
                theirs = config.create_timing_cache(file.read_bytes())
                if theirs is not None and not ours.combine(theirs, ignore_mismatch=False):
                    log.info("%s: of another GPU or TensorRT; it is replaced", file)
            blob = ours.serialize()
            if blob is not None:
                write_bytes(file, bytes(blob))
    except (OSError, SegdeployError) as e:
        log.info("%s: the timing cache is not kept: %s", file, e)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time, where the system has such locks; elsewhere the last to end wins."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    # The lock has a file of its own: the cache's is replaced, and a lock on it would go with the old one.
    handle = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
