"""Both flavours of TensorRT behind one loader: `tensorrt` (10.13 to 11) and `tensorrt_rtx` (TensorRT for RTX).

They share every call that segdeploy makes; what one lacks, its caller looks for by name. Nothing is imported before
`load`, so this module is safe on any host.
"""

from __future__ import annotations

import functools
import importlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from segdeploy.errors import MissingPartError, ModelError, first_line
from segdeploy.runtime.engine_lock import numbers
from segdeploy.runtime.gpu import current_gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

Name = Literal["tensorrt", "tensorrt_rtx"]
TENSORRT: Name = "tensorrt"
RTX: Name = "tensorrt_rtx"
FLAVOURS = {"tensorrt": TENSORRT, "rtx": RTX}
"""By the words of `--trt-flavour`."""
OLDEST = (10, 13)
"""Of standard TensorRT: from here to 11 there is every call that segdeploy makes, such as `create_runtime_config`."""

_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
TITLES = {TENSORRT: "TensorRT", RTX: "TensorRT for RTX"}
"""The flavours' names for people."""
_INSTALL = {
    TENSORRT: "pip install 'segdeploy[trt]'",
    RTX: "pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings (or 'segdeploy[rtx]')",
}
_NO_DRIVER = ("driver version is insufficient", "no CUDA-capable device", "initialization error", "system not yet")

log = logging.getLogger("tensorrt")


@dataclass(slots=True, eq=False)
class Heard:
    """What the library said while someone listened, details (VERBOSE) left out."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    """(severity, text), severity one of INTERNAL_ERROR, ERROR, WARNING and INFO."""

    @property
    def errors(self) -> list[str]:
        """The errors, each as its first line."""
        said = (text.strip() for severity, text in self.messages if severity.endswith("ERROR"))
        return [text.splitlines()[0] for text in said if text]

    @property
    def reason(self) -> str:
        """The first error, which is the cause of those after it; empty without one."""
        return next(iter(self.errors), "")

    def text(self) -> str:
        """All of it, a line for each message."""
        return "".join(f"{severity:<8} {text.rstrip()}\n" for severity, text in self.messages)


@dataclass(frozen=True, slots=True, eq=False)
class Flavour:
    """A loaded library.

    `logger` is the one that the library knows: it accepts a single logger in a process and ignores others.
    """

    name: Name
    module: Any
    logger: Any

    @property
    def version(self) -> str:
        """As the library says it, such as 11.4.0.106."""
        return str(self.module.__version__)

    @property
    def word(self) -> str:
        """As `--trt-flavour` says it."""
        return next(word for word, name in FLAVOURS.items() if name == self.name)

    @property
    def title(self) -> str:
        """Its name for people, with the version."""
        return f"{TITLES[self.name]} {self.version}"

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Gather what the library says inside. Errors are raised by whoever listens; `-v` shows warnings too."""
        heard = Heard()
        self.logger.listeners.append(heard)
        try:
            yield heard
        finally:
            self.logger.listeners.remove(heard)

    def builder(self) -> Any:
        """A new Builder; MissingPartError where the library finds no driver or GPU that it needs."""
        return self._made("Builder")

    def runtime(self) -> Any:
        """A new Runtime; MissingPartError where the library finds no driver or GPU that it needs."""
        return self._made("Runtime")

    def _made(self, what: str) -> Any:
        with self.listening() as heard:
            try:
                return getattr(self.module, what)(self.logger)
            except TypeError as e:  # the bindings' way to say that the library gave a null pointer
                raise MissingPartError(self._no_gpu(heard.reason or first_line(e))) from e

    def _no_gpu(self, reason: str) -> str:
        rest = "" if self.name == RTX else "; or build for RTX GPUs without one: --trt-flavour rtx"
        return (
            f"{self.title} is installed, but finds no NVIDIA driver or no GPU that it can use here ({reason}); "
            f"go on where both are{rest}"
        )

    def deserialize(self, plan: bytes, name: str, *, host_code: bool = False) -> Any:
        """A plan's engine.

        Args:
            plan: the engine file's bytes, from a source that is trusted: an engine is executable code.
            name: the file, for the message.
            host_code: also accept plans that carry code for the CPU (version-compatible ones).

        Raises:
            MissingPartError: no driver, or no GPU.
            ModelError: the library rejects the plan.
        """
        runtime = self.runtime()
        runtime.engine_host_code_allowed = host_code
        with self.listening() as heard:
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return engine
        if any(words in heard.reason for words in _NO_DRIVER):
            raise MissingPartError(self._no_gpu(heard.reason))
        raise ModelError(f"{name}: {self.title} rejects this engine: {heard.reason or 'it does not say why'}")


def load(flavour: Name) -> Flavour:
    """The library of that name, `tensorrt` or `tensorrt_rtx`.

    Raises:
        MissingPartError: it is not installed, cannot start, or is TensorRT before 10.13 or after 11.
    """
    module = _imported(flavour)
    if module is None:
        raise MissingPartError(f"{TITLES[flavour]} is not installed; {_INSTALL[flavour]}")
    if flavour == TENSORRT and not OLDEST <= numbers(module.__version__) < (12,):
        raise MissingPartError(
            f"TensorRT {module.__version__} is installed, expected 10.13 to 11; pip install -U 'segdeploy[trt]', "
            "or build for RTX GPUs: --trt-flavour rtx"
        )
    return _loaded(flavour, module)


def _imported(flavour: Name) -> Any:
    for name in _MODULES[flavour]:
        try:
            return importlib.import_module(name)
        except ImportError as e:
            if isinstance(e, ModuleNotFoundError) and e.name == name:
                continue
            raise MissingPartError(f"{TITLES[flavour]} cannot start: {first_line(e)}; {_INSTALL[flavour]}") from e
        except (OSError, RuntimeError) as e:  # a shared library that is missing or does not fit
            raise MissingPartError(f"{TITLES[flavour]} cannot start: {first_line(e)}; {_INSTALL[flavour]}") from e
    return None


@functools.cache
def _loaded(flavour: Name, module: Any) -> Flavour:
    return Flavour(flavour, module, _logger(module))


def _logger(trt: Any) -> Any:
    """Hands messages to `logging` and to whoever listens. It must not raise: the library would swallow it."""
    kinds = trt.ILogger.Severity
    names = [(kinds.INTERNAL_ERROR, "INTERNAL_ERROR"), (kinds.ERROR, "ERROR")]
    names += [(kinds.WARNING, "WARNING"), (kinds.INFO, "INFO")]

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[Heard] = []

        def log(self, severity: Any, msg: str) -> None:
            name = next((word for kind, word in names if severity == kind), "")
            if name:
                for heard in self.listeners:
                    heard.messages.append((name, msg))
            log.log(logging.DEBUG if name in ("", "INFO") else logging.INFO, "%s", msg)

    return Logger()


def pick_flavour(asked: str | None = None) -> Flavour:
    """The flavour that was asked for (`tensorrt` or `rtx`); else TensorRT where it and a GPU are, else that for RTX.

    Raises:
        MissingPartError: see `load`; where neither can build here, one line says how to finish on the target.
    """
    if asked is not None:
        return load(FLAVOURS[asked])
    if (standard := _imported(TENSORRT)) is not None and current_gpu() is not None:
        return load(TENSORRT)
    if _imported(RTX) is not None:
        return load(RTX)
    found = f"TensorRT {standard.__version__} is here, but no GPU" if standard is not None else "no TensorRT is here"
    raise MissingPartError(
        f"{found}; finish on the target: {_INSTALL[TENSORRT]}, then segdeploy build BUNDLE; "
        f"or build here for RTX GPUs: {_INSTALL[RTX]}"
    )
