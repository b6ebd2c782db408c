"""Errors that are the user's to mend: the command line prints them as one line and exits with `exit_code`.

Anything else that is raised is a bug in segdeploy and keeps its traceback.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SegdeployError(Exception):
    """Bad input or a missing part: what was expected, what came, what to do next."""

    exit_code = 2


class ConfigError(SegdeployError):
    """One or more mistakes in a configuration, all of them in one message."""


class DataError(SegdeployError):
    """An image, mask or table that cannot be used as it is."""


class MissingPartError(SegdeployError):
    """An optional package, plugin or weights file that is not there."""


class ModelError(SegdeployError):
    """A run folder, bundle or model file that cannot be opened."""


class ExportError(SegdeployError):
    """A graph that could not be written, or whose form is not what was asked for."""


class GateError(SegdeployError):
    """A limit on accuracy, parity or speed was not kept."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggest(word: str, known: Iterable[str]) -> str:
    """What the user may have meant, as the end of a sentence; empty where nothing is known."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if known else ""
