"""Backend `tensorrt`: an engine of TensorRT or of TensorRT for RTX, through cuda-python."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import threading
from typing import TYPE_CHECKING, Any

from segdeploy.data.facts_cache import cache_folder
from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime import cuda, kernel_cache, trt
from segdeploy.runtime.engine_lock import LOCK_FILE, Here, check, read_lock
from segdeploy.runtime.gpu import current_gpu
from segdeploy.runtime.runner import Runner, RunnerOptions
from segdeploy.runtime.trt_session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle

VARIANTS = ("", "eager")
_PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


class TrtRunner(Runner):
    """One engine on the first GPU that CUDA sees.

    Opening checks all that needs no device memory; the engine goes to the device inside `with`. `run` may be called
    from any thread, one call at a time: a context must not be shared, and the GPU is one.
    """

    def __init__(self, path: Path, sha256: str, options: RunnerOptions) -> None:
        self.path, self.sha256, self.options = path, sha256, options
        self.cuda = cuda.load()
        gpu = current_gpu()
        if gpu is None:
            raise MissingPartError("no GPU that CUDA can use here")
        self.gpu = gpu
        lock = read_lock(path.with_name(LOCK_FILE))
        self.flavour = trt.load(lock.flavour)
        if reasons := check(lock, Here(self.flavour.version, gpu, engine_sha256=sha256)):
            raise ModelError(f"{path}: {'; '.join(reasons)}; run segdeploy build {path.parent} here")
        if lock.version_compatible and not options.host_code:
            raise ModelError(
                f"{path}: a version-compatible engine, which brings code for the CPU; if its maker is trusted, "
                "run it with --allow-host-code (in Python: RunnerOptions(host_code=True))"
            )
        self.session: Session | None = None
        self._kernels: kernel_cache.KernelCache | None = None
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        name, plan = str(self.path), self.path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != self.sha256:  # an engine is code, and these are the bytes that will run
            raise ModelError(f"{name}: its bytes have changed since the bundle was opened")
        engine = self.flavour.deserialize(plan, name, host_code=self.options.host_code)
        del plan
        session = Session(self.flavour, engine, self.cuda, name, graphs=self.options.variant != "eager")
        file = cache_folder() / "kernels" / f"{self.sha256[:16]}-{self.gpu.compute_capability}.cache"
        try:
            self._kernels = kernel_cache.attach(session.config, file)
        except BaseException:
            session.close()
            raise
        self.session = session
        return self

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`; a batch that is larger than the engine allows is split."""
        with self._one_at_a_time:
            if self.session is None:
                raise RuntimeError("TrtRunner.run: outside `with` there is no engine on the device")
            labels = self.session.run(image)
            self.engine_seconds = self.session.seconds
            return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`; `cuda_graphs`: for each shape that ran, whether a graph is replayed, or why not."""
        return {
            "backend": "tensorrt",
            "variant": self.options.variant,
            "provider": f"{self.flavour.title} on {self.gpu.name}",
            "precision": self.options.precision,
            "threads": self.options.thread_count,
            "cuda_graphs": dict(self.session.modes) if self.session else {},
            "versions": {
                self.flavour.name: self.flavour.version,
                "cuda": self.cuda.version,
                "driver": self.gpu.driver or self.gpu.cuda,
            },
        }

    def close(self) -> None:
        """Wait for the device and give back all that is on it."""
        with self._one_at_a_time:
            session, self.session = self.session, None
            kernels, self._kernels = self._kernels, None
            try:
                if kernels is not None:
                    kernels.save()
            finally:
                if session is not None:
                    session.close()


def available() -> Availability:
    """Whether a TensorRT, cuda-python and a GPU are here; asked without importing TensorRT."""
    found = [name for name in _PACKAGES if importlib.util.find_spec(name) is not None]
    if not found:
        return Availability(
            ok=False, reason="no TensorRT is installed; pip install 'segdeploy[trt]' or 'segdeploy[rtx]'"
        )
    try:
        cuda.load()
    except MissingPartError as e:
        return Availability(ok=False, reason=str(e))
    return Availability(ok=True, version=_version(found[0]))


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module, [])
    return f"{module} {importlib.metadata.version(names[0])}" if names else module


def open_tensorrt(bundle: Bundle, options: RunnerOptions) -> TrtRunner:
    """Check the bundle's engine against this machine; it is put on the device inside `with`.

    Raises:
        ModelError: no engine of that precision, or one for another TensorRT or GPU.
        MissingPartError: its TensorRT, cuda-python, a driver or a GPU is missing; or an option that it has not.
    """
    if options.variant not in VARIANTS:
        raise MissingPartError(f"backend tensorrt has no variant {options.variant!r}; it has 'eager' (no CUDA graphs)")
    if options.device not in ("auto", "cuda"):
        raise MissingPartError(f"device {options.device!r}: backend tensorrt runs on cuda alone")
    artifact = bundle.find("engine", options.precision, target="tensorrt")
    if artifact is None:
        raise ModelError(
            f"{bundle.path}: holds no engine of precision {options.precision}; run segdeploy build {bundle.path} first"
        )
    return TrtRunner(bundle.path / artifact.file, artifact.sha256, options)


@hookimpl
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Register `tensorrt`."""
    register(
        BackendPlugin(
            name="tensorrt",
            summary="TensorRT 10 and 11, and TensorRT for RTX, on an NVIDIA GPU",
            artifact="engine",
            available=available,
            open=open_tensorrt,
            precisions=("fp32", "fp16", "int8"),
        )
    )
