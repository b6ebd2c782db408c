"""Backend `openvino`: FP32 on the CPU. What is asked of OpenVINO is read back, and refused where it was not kept."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime.runner import Runner, RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from segdeploy.bundle import Bundle

_TELEMETRY = "openvino_telemetry"


class OpenVinoRunner(Runner):
    """One compiled model and one request on OpenVINO's CPU device."""

    def __init__(self, path: Path, options: RunnerOptions) -> None:
        openvino = import_openvino()
        self._path = path
        self._precision = options.precision
        self._version = short_version(openvino)
        self._tensor = openvino.Tensor
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
            _check_interface(model, path)
            self._compiled = core.compile_model(model, "CPU", properties(options.thread_count))
            self._request = self._compiled.create_infer_request()
        except RuntimeError as e:
            raise ModelError(f"{path}: OpenVINO cannot load it: {_last_line(e)}") from e
        self._types = float_types(self._compiled)
        self._check_kept(options.thread_count)

    def _check_kept(self, threads: int) -> None:
        given = self._compiled.get_property("INFERENCE_NUM_THREADS")
        if given != threads:
            raise MissingPartError(
                f"backend openvino: {threads} threads were asked for, OpenVINO runs {given} here; use --threads {given}"
            )
        devices = self._compiled.get_property("EXECUTION_DEVICES")
        if devices != ["CPU"] or self._types != ["f32"]:
            raise ModelError(
                f"{self._path}: expected OpenVINO to compute in f32 on CPU, "
                f"found {', '.join(self._types) or 'no floating point'} on {', '.join(devices)}"
            )

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`. Raises ModelError for an image of another dtype or size than the model's."""
        try:
            # A tensor of its own: the image is copied, and its type and shape are checked. InferRequest.infer would
            # convert and resize instead, and with one thread it hides errors and gives the last result once more.
            self._request.set_tensor("image", self._tensor(image))
            started = time.perf_counter()
            self._request.start_async()
            self._request.wait()
            self.engine_seconds = time.perf_counter() - started
        except RuntimeError as e:
            raise ModelError(f"{self._path}: OpenVINO cannot run it: {_last_line(e)}") from e
        # The request's own output is overwritten by the next run.
        labels: NDArray[np.uint8] = self._request.get_tensor("mask").data.copy()
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`; threads, streams, pinning and types are what the compiled model says of itself."""
        return {
            "backend": "openvino",
            "variant": "",
            "provider": self._compiled.get_property("EXECUTION_DEVICES")[0],
            "precision": self._precision,
            "computed_in": self._types,
            "threads": self._compiled.get_property("INFERENCE_NUM_THREADS"),
            "streams": self._compiled.get_property("NUM_STREAMS"),
            "pinned": self._compiled.get_property("ENABLE_CPU_PINNING"),
            "versions": {"openvino": self._version},
        }

    def close(self) -> None:
        """Free the request and the compiled model."""
        del self._request, self._compiled


def properties(threads: int) -> dict[str, Any]:
    """What is asked of OpenVINO's CPU device."""
    return {
        # By default it computes in BF16 or FP16 wherever the CPU can, and says nothing.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Otherwise latency mode leaves out hyper-threads and efficient cores, and gives fewer threads than asked for.
        "ENABLE_HYPER_THREADING": True,
        "SCHEDULING_CORE_TYPE": "ANY_CORE",
        # Every process would pin its threads to the same first cores.
        "ENABLE_CPU_PINNING": False,
        "CACHE_DIR": "",
    }


def float_types(compiled: Any) -> list[str]:
    """The floating-point types that a compiled model's operations run in ("f32", "bf16", "f16"), sorted."""
    infos = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    found = {info["runtimePrecision"].astype(str) for info in infos if "runtimePrecision" in info}
    return sorted(name for name in found if name.startswith(("f", "bf")))


def _check_interface(model: Any, path: Path) -> None:
    ports = (*model.inputs, *model.outputs)
    found = [(p.any_name, p.element_type.get_type_name(), p.partial_shape.rank.get_length()) for p in ports]
    if found != [("image", "u8", 4), ("mask", "u8", 3)]:
        raise ModelError(f"{path}: expected image u8[N,H,W,3] -> mask u8[N,H,W], found {found}")


def import_openvino() -> Any:
    """The package `openvino`, without the usage statistics that it sends to its makers when it is imported.

    openvino has a stub of its own for the case that openvino_telemetry is not installed; for the time of the
    import that is what it sees. Where the program itself has imported openvino before, nothing changes.
    """
    hide = _TELEMETRY not in sys.modules
    if hide:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hide:
            del sys.modules[_TELEMETRY]
    return openvino


def short_version(openvino: Any) -> str:
    """Release number without build and branch."""
    return str(openvino.__version__).partition("-")[0]


def _last_line(error: Exception) -> str:
    # The lines before it are places in OpenVINO's source.
    return ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1].strip()[:300]


def available() -> Availability:
    """Whether openvino is installed, and can be loaded."""
    if importlib.util.find_spec("openvino") is None:
        return Availability(ok=False, reason="openvino not installed; pip install 'openvino>=2025'")
    try:
        return Availability(ok=True, version=short_version(import_openvino()))
    except ImportError as e:
        return Availability(ok=False, reason=f"openvino cannot be loaded: {_last_line(e)}")


def open_openvino(bundle: Bundle, options: RunnerOptions) -> OpenVinoRunner:
    """Open the bundle's FP32 ONNX file.

    Raises:
        MissingPartError: a device, a variant, a precision or more threads than this backend has.
        ModelError: the bundle holds no such file, or OpenVINO cannot load it.
    """
    if options.device not in ("auto", "cpu"):
        raise MissingPartError(f"device {options.device!r}: backend openvino knows cpu")
    if options.variant:
        raise MissingPartError(f"backend openvino has no variant {options.variant!r}")
    if options.precision != "fp32":
        # Without FP16 arithmetic it computes an FP16 file in BF16 or FP32; either would stand under a wrong name.
        raise MissingPartError(f"precision {options.precision}: backend openvino runs fp32")
    artifact = bundle.find("onnx", options.precision)
    if artifact is None:
        raise ModelError(
            f"{bundle.path}: holds no ONNX file of precision {options.precision}; run segdeploy export first"
        )
    return OpenVinoRunner(bundle.path / artifact.file, options)


@hookimpl
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Register `openvino`."""
    register(
        BackendPlugin(
            name="openvino",
            summary="OpenVINO on Intel and AMD CPUs, FP32",
            artifact="onnx",
            available=available,
            open=open_openvino,
        )
    )
