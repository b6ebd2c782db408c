"""Runner: uint8 images in, uint8 class ids out; and how to open one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segdeploy.environment import available_cores
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.bundle import Artifact, Bundle
    from segdeploy.plugin import BackendPlugin

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How to open a runner.

    `threads`: CPU threads, None for all cores of this process. `device`: "auto", "cpu" or "cuda".
    `precision`: "fp32", or another that the bundle holds; "auto" is for `open_runner`, and means FP32, or what the
    file has where there is only another, as with an engine. `variant`: a way of running that only one backend knows
    ("channels_last", "amp", "compile", "eager"). `host_code`: let a TensorRT engine bring code for the CPU, as
    version-compatible ones do; only for engines whose maker is trusted.
    """

    threads: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    variant: str = ""
    host_code: bool = False

    @property
    def thread_count(self) -> int:
        """The number of threads, settled."""
        return self.threads or available_cores()


class Runner(ABC):
    """Runs one model. Device memory is held only inside `with`.

    `engine_seconds`: what the engine itself took of the last `run`, by CUDA events where there are some, else by the
    clock around its call; None where a runner does not tell.
    """

    engine_seconds: float | None = None

    @abstractmethod
    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """image (N, height, width, 3) uint8 RGB at the model's size -> class ids (N, height, width) uint8."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Backend, provider that really runs, precision, threads and versions, JSON-ready."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  (a runner that holds nothing needs no close)
        """Give back what the runner holds."""


_PREFERENCE = ("tensorrt", "onnxruntime", "torch")


def open_runner(bundle: Bundle, backend: str | None = None, options: RunnerOptions | None = None) -> Runner:
    """Open the named backend, or the first that can run what the bundle holds.

    Raises:
        MissingPartError: no such backend, or it is not installed.
        ModelError: the bundle has nothing that it runs.
    """
    options = options or RunnerOptions()
    if backend is None:
        backend = choose_backend(bundle, options)
    plugin = registry.backend(backend)
    ready = plugin.available()
    if not ready.ok:
        raise MissingPartError(f"backend {backend}: {ready.reason}")
    options = replace(options, precision=_settle(bundle, plugin, options.precision))
    if backend != "onnxruntime":  # which tells of the graph itself, once it knows whether a CPU or a GPU runs it
        target = "cpu" if options.device in ("auto", "cpu") else "tensorrt"
        warn_of_failure(bundle, bundle.find(plugin.artifact, options.precision, target))
    return plugin.open(bundle, options)


def _settle(bundle: Bundle, plugin: BackendPlugin, asked: str) -> str:
    """What "auto" means here: FP32, or the precision of the one file that this backend runs."""
    held = [a.precision for a in bundle.artifacts if a.kind == plugin.artifact]
    return asked if asked != "auto" else "fp32" if "fp32" in held or not held else held[0]


def warn_of_failure(bundle: Bundle, file: Artifact | None) -> None:
    """Whoever runs a file that failed its verification is told so."""
    if file is not None and (reason := failure(bundle, file)) is not None:
        log.warning("%s: it failed its verification: %s", bundle.path / file.file, reason)


def failure(bundle: Bundle, file: Artifact) -> str | None:
    """Why a graph or an engine failed its verification; None where it did not, or had none."""
    if file.kind == "engine":
        records = file.about.get("verification", ())
    else:
        kept = bundle.file.verification if bundle.file and file.kind == "onnx" else ()
        records = [r for r in kept if (r["precision"], r.get("target", "")) == (file.precision, file.target)]
    return next((r["reasons"][0] for r in records if not r["passed"]), None)


def choose_backend(bundle: Bundle, options: RunnerOptions) -> str:
    """The first installed backend with a file to run: an engine's, onnxruntime, torch, then third parties.

    An engine that failed its verification, or that would not run on the device that is asked for, is left out.
    """
    plugins = registry.catalogue("backend").plugins
    order = [*_PREFERENCE, *sorted(set(plugins) - set(_PREFERENCE))]
    reasons = []
    for name in (n for n in order if n in plugins):
        file = bundle.find(plugins[name].artifact, _settle(bundle, plugins[name], options.precision))
        if file is None or (file.kind == "engine" and (options.device == "cpu" or failure(bundle, file))):
            continue
        ready = plugins[name].available()
        if ready.ok:
            return name
        reasons.append(f"{name}: {ready.reason}")
    held = ", ".join(sorted({f"{a.kind} {a.precision}" for a in bundle.artifacts}))
    if reasons:
        raise MissingPartError(f"{bundle.path}: no backend can run it here; {'; '.join(reasons)}")
    raise ModelError(f"{bundle.path}: nothing in it runs at precision {options.precision}; it holds {held}")
