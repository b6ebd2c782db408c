"""Backend `onnxruntime`: threads explicit, provider asserted, never a silent fall-back."""

from __future__ import annotations

import importlib.util
import logging
import time
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError, ModelError, SegdeployError, first_line
from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime.ort_providers import (
    CPU,
    TENSORRT,
    TENSORRT_BATCH,
    Provider,
    candidates,
    check_assignment,
    provider,
)
from segdeploy.runtime.runner import Runner, RunnerOptions, warn_of_failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle

log = logging.getLogger(__name__)


class OrtRunner(Runner):
    """One session on one provider."""

    fell_back: str | None = None
    """Why it runs on the CPU although something better is there."""

    def __init__(self, path: Path, provider: Provider, options: RunnerOptions) -> None:
        self.options, self.provider = options, provider
        self.session = self._open(path)
        self._check_interface(path)

    def _open(self, path: Path) -> Any:
        ort = import_onnxruntime()
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.options.thread_count
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        name, on_cpu = self.provider.name, self.provider.name == CPU
        if not on_cpu:
            settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = ort.InferenceSession(str(path), settings, providers=[(name, self.provider.options)])
        except Exception as e:  # onnxruntime's errors have no common base of their own
            raise ModelError(f"{path}: onnxruntime cannot load it on {name}: {first_line(e)[:300]}") from e
        active = session.get_providers()[0]
        if active != name:
            raise MissingPartError(f"onnxruntime fell back to {active}, although {name} was asked for")
        if not on_cpu:
            check_assignment(session, name, path)
            session.disable_fallback()  # else a run that fails is silently tried again elsewhere
        return session

    def _check_interface(self, path: Path) -> None:
        found = [(v.name, v.type, len(v.shape)) for v in (*self.session.get_inputs(), *self.session.get_outputs())]
        if found != [("image", "tensor(uint8)", 4), ("mask", "tensor(uint8)", 3)]:
            raise ModelError(f"{path}: expected image uint8[N,H,W,3] -> mask uint8[N,H,W], found {found}")

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        if self.provider.name != TENSORRT or len(image) <= TENSORRT_BATCH:
            started = time.perf_counter()
            labels: NDArray[np.uint8] = self.session.run(["mask"], {"image": image})[0]
            self.engine_seconds = time.perf_counter() - started
            return labels
        import numpy as np

        parts, seconds = [], 0.0
        for i in range(0, len(image), TENSORRT_BATCH):
            parts.append(self.run(image[i : i + TENSORRT_BATCH]))
            seconds += self.engine_seconds or 0.0
        self.engine_seconds = seconds
        return np.concatenate(parts)

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        import onnxruntime as ort

        return {
            "backend": "onnxruntime",
            "variant": self.options.variant,
            "provider": self.session.get_providers()[0],
            "precision": self.options.precision,
            "threads": self.options.thread_count,
            "versions": {"onnxruntime": ort.__version__},
        } | ({"fell_back": self.fell_back} if self.fell_back else {})

    def close(self) -> None:
        """End the session."""
        del self.session


def read_metadata(path: Path) -> dict[str, str]:
    """An ONNX file's metadata, with the model's description as `segdeploy.spec`, read without the onnx package.

    Raises:
        MissingPartError: onnxruntime is not installed.
        ModelError: not an ONNX file, or one that segdeploy did not write.
    """
    ort = import_onnxruntime(f"{path}: ")
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise ModelError(f"{path}: not an ONNX model that onnxruntime reads: {first_line(e)[:300]}") from e
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if "segdeploy.spec" not in found:
        raise ModelError(
            f"{path}: expected an ONNX file written by segdeploy export; its metadata has no segdeploy.spec"
        )
    return found


def import_onnxruntime(what: str = "") -> Any:
    """The module; MissingPartError, beginning with `what`, where it is not installed."""
    ready = available()
    if not ready.ok:
        raise MissingPartError(f"{what}{ready.reason}")
    import onnxruntime

    return onnxruntime


def available() -> Availability:
    """Whether onnxruntime is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Availability(
            ok=False, reason="onnxruntime not installed; pip install 'segdeploy[cpu]' or 'segdeploy[gpu]'"
        )
    import onnxruntime as ort

    return Availability(ok=True, version=str(ort.__version__))


def open_onnxruntime(bundle: Bundle, options: RunnerOptions) -> OrtRunner:
    """Open the bundle's ONNX file on the provider that the options mean.

    Raises:
        ModelError: no such file, or one that cannot run there.
        MissingPartError: no such provider, or one that leaves work to another.
    """
    import onnxruntime as ort

    names = candidates(options.device, options.variant, ort.get_available_providers())
    why = None
    for name in names[:-1]:
        try:
            return _open_on(name, bundle, options)
        except SegdeployError as e:
            why = str(e)
            log.warning("%s; going on with the CPU, as --device auto allows", e)
    runner = _open_on(names[-1], bundle, options)
    runner.fell_back = why
    return runner


def _open_on(name: str, bundle: Bundle, options: RunnerOptions) -> OrtRunner:
    target = "cpu" if name == CPU else "tensorrt"
    graph = bundle.find("onnx", options.precision, target)
    if graph is None:
        raise ModelError(
            f"{bundle.path}: holds no ONNX file of precision {options.precision} for {name}; run segdeploy export first"
        )
    size = (bundle.spec.preprocessing.height, bundle.spec.preprocessing.width)
    runner = OrtRunner(bundle.path / graph.file, provider(name, graph, size), options)
    warn_of_failure(bundle, graph)
    return runner


@hookimpl
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Register `onnxruntime`."""
    register(
        BackendPlugin(
            name="onnxruntime",
            summary="ONNX Runtime on the CPU, on CUDA or through TensorRT",
            artifact="onnx",
            available=available,
            open=open_onnxruntime,
            precisions=("fp32", "fp16", "int8"),
        )
    )
