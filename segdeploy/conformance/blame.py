"""Whose mistake an exception is: what a part's own code raises is a broken rule, never a crash of the kit."""

from __future__ import annotations

import inspect
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.conformance.rule import BrokenError, SkippedError
from segdeploy.plugin.attempt import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Errors = type[Exception] | tuple[type[Exception], ...]

_LONGEST = 300  # characters of a message


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What stands behind `functools.partial`."""
    while hasattr(function, "func"):
        function = function.func
    return function


class Blame:
    """Knows a part's own files: those beside the code of `function`, which belongs to the part."""

    def __init__(self, function: Callable[..., Any]) -> None:
        module = inspect.getmodule(unwrapped(function))
        file = Path(getattr(module, "__file__", None) or "unknown").resolve()
        # A package with all its modules, or one lone module; of segdeploy, whose kit this is, the one folder.
        package = (module.__package__ or "").split(".") if module else [""]
        self.home = file if package == [""] else file.parents[0 if package[0] == "segdeploy" else len(package) - 1]

    @contextmanager
    def __call__(self, doing: str, besides: Errors = ()) -> Iterator[None]:
        """Inside, the part's own code runs; what it raises, but for `besides`, becomes a BrokenError with the place.

        SystemExit and errors of Rust extensions, which are no `Exception`, too; only KeyboardInterrupt is the user's.
        """
        try:
            yield
        except (BrokenError, SkippedError, KeyboardInterrupt):
            raise
        except besides:
            raise
        except BaseException as e:
            raise BrokenError(f"{doing}: {one_line(e)[:_LONGEST]}{self._where(e)}") from e

    def _where(self, error: BaseException) -> str:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            path = Path(frame.filename)
            if path.is_file() and path.resolve().is_relative_to(self.home):
                return f" ({path.name}:{frame.lineno})"
        cause = error.__cause__ or error.__context__  # our own errors wrap what the part has raised
        return self._where(cause) if cause is not None else ""
