"""Ludwig's words for where to run and what a table is, as segdeploy's; for the command line and the Python API."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.errors import DataError, MissingPartError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

_KINDS = {"xls": "excel", "xlsx": "excel", "ndjson": "jsonl", "htm": "html", "h5": "hdf5"}
_ELSEWHERE = ("ray", "horovod", "dask", "deepspeed", "ddp", "fsdp")


def device_of(gpus: int | str | Sequence[int] | None) -> str:
    """Ludwig's `gpus` (None, -1 for none, a number, several) or a device's name as a device.

    Of several GPUs the first is used, and the log says so.
    """
    if gpus is None:
        return "auto"
    words = gpus.replace(",", " ").split() if isinstance(gpus, str) else gpus if not isinstance(gpus, int) else [gpus]
    named = [str(w) for w in words]
    if not named or named[0].startswith("-"):
        return "cpu"
    if len(named) > 1:
        log.warning("one process uses one GPU: %s of %s", named[0], ", ".join(named))
    return f"cuda:{named[0]}" if named[0].isdecimal() else named[0]


def backend_of(backend: str | Mapping[str, Any] | None) -> str | None:
    """Ludwig's `backend` as a runtime's name; "local" is this machine, so no name.

    Raises:
        MissingPartError: a backend that spreads work over several machines.
    """
    name = backend.get("type") if isinstance(backend, Mapping) else backend
    if name in _ELSEWHERE:
        raise MissingPartError(
            f"backend: expected local or one of `segdeploy plugins list`, got {name!r}; segdeploy works on one machine"
        )
    return None if name in (None, "local") else str(name)


def check_data_format(data_format: str | None, *tables: Any) -> None:
    """Tables are read by what they are; DataError where `data_format` (None and "auto" aside) says otherwise."""
    for table in tables:
        if table is not None and data_format not in (None, "auto", kind := _kind(table)):
            raise DataError(f"data_format: expected auto or {kind}, as the table is, got {data_format!r}")


def _kind(table: Any) -> str:
    if isinstance(table, (str, os.PathLike)):
        path = Path(table)
        word = path.suffix.lower().lstrip(".")
        return "folder" if path.is_dir() else _KINDS.get(word, word)
    return "dict" if isinstance(table, Mapping) else "df"
