"""Facts about files, kept between runs by path, size and time: one SQLite file in the user's cache folder.

It may be deleted at any time. Whatever goes wrong with it costs time, never a run.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import PIL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

log = logging.getLogger(__name__)

VERSION = f"2/{PIL.__version__}"
"""Of the facts and of the decoders, whose pixels may differ by a level from release to release."""
LIMIT_BYTES = 256 << 20
_TABLE = "CREATE TABLE IF NOT EXISTS facts (kind TEXT, path TEXT, stamp TEXT, fields TEXT, PRIMARY KEY (kind, path))"
_SETTLED = 2_000_000_000  # ns; a file changed so recently may change again within one tick of its clock


def cache_folder() -> Path:
    """`$SEGDEPLOY_CACHE`, else segdeploy's folder where this system keeps caches."""
    if chosen := os.environ.get("SEGDEPLOY_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "segdeploy"


class FactsCache:
    """A context manager; facts are JSON texts."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._open: sqlite3.Connection | None = None

    def __enter__(self) -> FactsCache:
        try:
            self._file = self._file or cache_folder() / "facts.sqlite"
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._open = self._connect(self._file)
        except (OSError, RuntimeError, sqlite3.Error) as e:  # RuntimeError: there is no home
            log.info("facts about files are not kept: %s", e)
        return self

    @staticmethod
    def _connect(file: Path) -> sqlite3.Connection:
        for last in (False, True):
            connection = sqlite3.connect(file, timeout=5)
            try:
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(_TABLE)
                connection.execute("SELECT kind, path, stamp, fields FROM facts LIMIT 1").fetchone()
            except sqlite3.DatabaseError as e:
                connection.close()
                if last or (isinstance(e, sqlite3.OperationalError) and "locked" in str(e)):
                    raise
                file.unlink(missing_ok=True)  # no database, or another's: begin again
            else:
                return connection
        raise AssertionError

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._open is None:
            return
        with closing(self._open) as connection, suppress(sqlite3.Error):
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            if pages * connection.execute("PRAGMA page_size").fetchone()[0] > LIMIT_BYTES:
                half = "(SELECT rowid FROM facts ORDER BY rowid LIMIT (SELECT count(*) / 2 FROM facts))"
                with connection:
                    connection.execute(f"DELETE FROM facts WHERE rowid IN {half}")
                connection.execute("VACUUM")
        self._open = None

    @staticmethod
    def stamp(path: Path) -> str:
        """What must be equal for a file to count as unchanged; "" for one that is not to be kept."""
        try:
            stat = path.stat()
        except OSError:
            return ""
        if abs(time.time_ns() - stat.st_mtime_ns) < _SETTLED:
            return ""
        return f"{VERSION}/{stat.st_size}/{stat.st_mtime_ns}"

    def load(self, kind: str, stamps: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
        """The facts of those files that have not changed."""
        names = {os.path.abspath(path): path for path, stamp in stamps.items() if stamp}  # noqa: PTH100  (no links resolved)
        if self._open is None or not names:
            return
        for name, stamp, fields in self._rows(kind, list(names)):
            if stamp == stamps[names[name]]:
                yield names[name], fields

    def _rows(self, kind: str, names: list[str]) -> list[tuple[str, str, str]]:
        rows: list[tuple[str, str, str]] = []
        assert self._open is not None
        try:
            for i in range(0, len(names), 500):
                some = names[i : i + 500]
                marks = ",".join("?" * len(some))
                question = f"SELECT path, stamp, fields FROM facts WHERE kind = ? AND path IN ({marks})"
                rows += self._open.execute(question, (kind, *some)).fetchall()
        except (sqlite3.Error, UnicodeError) as e:
            log.info("kept facts cannot be read: %s", e)
        return rows

    def save(self, kind: str, stamps: Mapping[Path, str], facts: Mapping[Path, str]) -> None:
        """Keep the facts of those files that have a stamp, all or none."""
        if self._open is None:
            return
        rows = [
            (kind, os.path.abspath(path), stamps[path], fields)  # noqa: PTH100
            for path, fields in facts.items()
            if stamps[path]
        ]
        try:
            with self._open as transaction:
                transaction.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", rows)
        except (sqlite3.Error, UnicodeError) as e:
            log.info("facts about files are not kept: %s", e)
