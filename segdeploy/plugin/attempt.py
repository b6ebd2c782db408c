"""Runs code of a plugin so that it can neither stop nor disturb the others."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pluggy import PluginValidationError
from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segdeploy.plugin.distributions import Owner

log = logging.getLogger(__name__)

SLOW_SECONDS = 2.0
HANG_SECONDS = 10.0
LEAVE_OUT = "SEGDEPLOY_PLUGINS=a,b loads only third parties' plugins a and b, and SEGDEPLOY_PLUGINS= none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An entry point that gives no plugin, or not all of its plugins: why, in one line, and the traceback."""

    owner: Owner
    reason: str
    detail: str = field(default="", compare=False)


def attempt(
    owner: Owner, what: str, call: Callable[[], None], explain: Callable[[BaseException], str] | None = None
) -> tuple[float, Failure | None]:
    """Run `call`, and give the seconds that it took and what went wrong.

    A plugin may fail in any way, SystemExit and errors of Rust extensions (which are no `Exception`) among them;
    only KeyboardInterrupt is the user's. Its prints go to standard error, away from what a command says on
    standard output, and third parties' changes of the warnings filters are undone. After `HANG_SECONDS` a warning
    names a third party's plugin that is still at it (`what`: "being imported"). `explain` words an error in one line.
    """
    started = time.perf_counter()
    failure = None
    try:
        with contextlib.redirect_stdout(sys.stderr), _strangers(owner, what):
            call()
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        detail = "".join(traceback.format_exception(e))
        failure = Failure(owner=owner, reason=(explain or one_line)(e), detail=detail)
    return time.perf_counter() - started, failure


@contextlib.contextmanager
def _strangers(owner: Owner, what: str) -> Iterator[None]:
    if owner.ours:
        yield  # what torch and timm set up when they are imported stays
        return
    timer = threading.Timer(HANG_SECONDS, _say_hanging, (owner, what, HANG_SECONDS))
    timer.daemon = True
    timer.start()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        timer.cancel()


def _say_hanging(owner: Owner, what: str, seconds: float) -> None:
    log.warning("plugin %s is still %s after %g s; %s", owner, what, seconds, LEAVE_OUT)


def warn_if_slow(owner: Owner, seconds: float) -> None:
    """Name a third party's plugin that makes every command wait.

    The time is that of all it imports. Nothing is subtracted for packages that others would import later: a
    backend that imports torch does cost `predict` those seconds. Ours come first, so torch is never on the bill of
    an encoder or a decoder.
    """
    if seconds > SLOW_SECONDS and not owner.ours:
        log.warning(
            "plugin %s took %.1f s to load; its author can import heavy packages inside functions; %s",
            owner,
            seconds,
            LEAVE_OUT,
        )


def one_line(error: BaseException) -> str:
    """Type and first line of an error, also of one whose text cannot be had; of pydantic's the first mistake."""
    try:
        if isinstance(error, ValidationError):
            mistake = error.errors(include_url=False)[0]
            return f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}, found {mistake['input']!r}"
        lines = str(error).strip().splitlines() or [""]
        # pluggy names the plugin and the hook first, and what is wrong last.
        first = f"{lines[0]}: {lines[-1]}" if isinstance(error, PluginValidationError) and lines[1:] else lines[0]
    except Exception:
        first = "(its message cannot be printed)"
    return f"{type(error).__name__}: {first}".removesuffix(": ")
