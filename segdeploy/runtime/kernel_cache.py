"""Kernels that TensorRT for RTX compiled on this GPU, kept from one process to the next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from segdeploy.errors import SegdeployError
from segdeploy.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class KernelCache:
    """The library's runtime cache of one engine, and the file that it lives in between.

    The file holds code for the GPU: it belongs into the user's own cache folder, and never into a bundle.
    """

    def __init__(self, cache: Any, file: Path) -> None:
        self._cache, self._file = cache, file
        self._known = b""

    def fill(self) -> None:
        """Take what the file holds; one of another version or GPU, or that cannot be read, is left aside."""
        try:
            self._known = self._file.read_bytes()
        except FileNotFoundError:
            return
        except OSError as e:
            log.info("%s: cannot be read (%s); kernels are compiled anew", self._file, e.strerror or e)
            return
        if not self._cache.deserialize(self._known):
            log.info("%s: of another TensorRT or GPU; kernels are compiled anew", self._file)
            self._cache.reset()

    def save(self) -> None:
        """Write the file anew where kernels were added; where it cannot be, that costs time alone, and is logged."""
        found = self._cache.serialize()
        if found is not None and (content := bytes(found)) != self._known:
            try:
                write_bytes(self._file, content)
            except (OSError, SegdeployError) as e:
                log.info("the compiled kernels are not kept: %s", e)


def attach(config: Any, file: Path) -> KernelCache | None:
    """Give `config` (an IRuntimeConfig) a cache that is kept in `file`; None where this TensorRT has no such thing."""
    if not hasattr(config, "create_runtime_cache"):
        return None
    cache = config.create_runtime_cache()
    if cache is None or not config.set_runtime_cache(cache):
        log.info("TensorRT for RTX takes no runtime cache; kernels are compiled anew")
        return None
    kept = KernelCache(cache, file)
    kept.fill()
    return kept
