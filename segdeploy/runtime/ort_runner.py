"""Backend `onnxruntime`: threads explicit, provider asserted, never a silent fall-back."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError, ModelError, SegdeployError, first_line
from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime.runner import Runner, RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle

log = logging.getLogger(__name__)

# Integers that say how large a tensor is; onnxruntime keeps them on the CPU on purpose.
_SHAPE_OPERATORS = {"Shape", "Concat", "Gather", "Slice", "Unsqueeze", "Squeeze", "Cast"}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtRunner(Runner):
    """One session on one provider."""

    def __init__(self, path: Path, options: RunnerOptions) -> None:
        import onnxruntime as ort

        self.options = options
        self.provider = _pick_provider(options.device, ort.get_available_providers())
        try:
            self.session = self._open(path)
        except SegdeployError as e:
            if options.device != "auto" or self.provider == _PROVIDERS["cpu"]:
                raise
            log.warning("%s; going on with the CPU, as --device auto allows", e)
            self.provider = _PROVIDERS["cpu"]
            self.session = self._open(path)
        self._check_interface(path)

    def _open(self, path: Path) -> Any:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.options.thread_count
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        on_cpu = self.provider == _PROVIDERS["cpu"]
        if not on_cpu:
            settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # TF32 is on by default on CUDA, and FP32 is meant to be FP32.
        provider = self.provider if on_cpu else (self.provider, {"use_tf32": "0"})
        try:
            session = ort.InferenceSession(str(path), settings, providers=[provider])
        except Exception as e:  # onnxruntime's errors have no common base of their own
            raise ModelError(f"{path}: onnxruntime cannot load it on {self.provider}: {first_line(e)[:300]}") from e
        active = session.get_providers()[0]
        if active != self.provider:
            raise MissingPartError(f"onnxruntime fell back to {active}, although {self.provider} was asked for")
        if not on_cpu:
            _check_assignment(session, self.provider, path)
        return session

    def _check_interface(self, path: Path) -> None:
        found = [(v.name, v.type, len(v.shape)) for v in (*self.session.get_inputs(), *self.session.get_outputs())]
        if found != [("image", "tensor(uint8)", 4), ("mask", "tensor(uint8)", 3)]:
            raise ModelError(f"{path}: expected image uint8[N,H,W,3] -> mask uint8[N,H,W], found {found}")

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        labels: NDArray[np.uint8] = self.session.run(["mask"], {"image": image})[0]
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        import onnxruntime as ort

        return {
            "backend": "onnxruntime",
            "variant": "",
            "provider": self.session.get_providers()[0],
            "precision": self.options.precision,
            "threads": self.options.thread_count,
            "versions": {"onnxruntime": ort.__version__},
        }

    def close(self) -> None:
        """End the session."""
        del self.session


def _pick_provider(device: str, present: list[str]) -> str:
    if device == "auto":
        device = "cuda" if "CUDAExecutionProvider" in present else "cpu"
    wanted = _PROVIDERS.get(device)
    if wanted is None:
        raise MissingPartError(f"device {device!r}: onnxruntime here knows cpu and cuda")
    if wanted not in present:
        raise MissingPartError(
            f"device {device}: this onnxruntime has no {wanted}; pip install 'segdeploy[gpu]' in a fresh environment"
        )
    return wanted


def _check_assignment(session: Any, provider: str, path: Path) -> None:
    """Refuse a session whose real work was put on another provider; shape arithmetic on the CPU is by design."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise MissingPartError(f"{path}: this onnxruntime cannot say which provider runs what; install a newer one")
    parts = [p for p in session.get_provider_graph_assignment_info() if p.ep_name != provider]
    strays = {node.op_type for part in parts for node in part.get_nodes()} - _SHAPE_OPERATORS
    if strays:
        raise MissingPartError(
            f"{path}: {provider} leaves {', '.join(sorted(strays))} to the CPU; "
            "a newer onnxruntime-gpu may have them, or use --device cpu"
        )


def spec_text(path: Path) -> str:
    """The model description inside an ONNX file's metadata, read without the onnx package.

    Raises:
        MissingPartError: onnxruntime is not installed.
        ModelError: not an ONNX file, or one that segdeploy did not write.
    """
    ready = available()
    if not ready.ok:
        raise MissingPartError(f"{path}: {ready.reason}")
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise ModelError(f"{path}: not an ONNX model that onnxruntime reads: {first_line(e)[:300]}") from e
    found: str | None = session.get_modelmeta().custom_metadata_map.get("segdeploy.spec")
    if found is None:
        raise ModelError(
            f"{path}: expected an ONNX file written by segdeploy export; its metadata has no segdeploy.spec"
        )
    return found


def available() -> Availability:
    """Whether onnxruntime is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Availability(
            ok=False, reason="onnxruntime not installed; pip install 'segdeploy[cpu]' or 'segdeploy[gpu]'"
        )
    import onnxruntime as ort

    return Availability(ok=True, version=str(ort.__version__))


def open_onnxruntime(bundle: Bundle, options: RunnerOptions) -> OrtRunner:
    """Open the bundle's ONNX file."""
    if options.variant:
        raise MissingPartError(f"backend onnxruntime has no variant {options.variant!r}")
    artifact = bundle.find("onnx", options.precision)
    if artifact is None:
        raise ModelError(
            f"{bundle.path}: holds no ONNX file of precision {options.precision}; run segdeploy export first"
        )
    return OrtRunner(bundle.path / artifact.file, options)


@hookimpl
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Register `onnxruntime`."""
    register(
        BackendPlugin(
            name="onnxruntime",
            summary="ONNX Runtime on CPU or CUDA",
            artifact="onnx",
            available=available,
            open=open_onnxruntime,
        )
    )
