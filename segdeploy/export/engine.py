"""A TensorRT for RTX engine, built ahead of time by the real parser and builder, on a machine with or without a GPU.

Facts behind the calls: https://docs.nvidia.com/deeplearning/tensorrt-rtx. Precision stands in the graph
(strong typing), so the same ONNX file gives the same engine everywhere.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from segdeploy.errors import ExportError, MissingPartError
from segdeploy.files import sha256, write_bytes, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.model.spec import ModelSpec

log = logging.getLogger(__name__)

ENGINE_FILE = "model.engine"
LOCK_FILE = "engine.lock.json"
MAX_BATCH = 8
NOT_RUN = "built, not run on hardware"

_INSTALL = "pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings (or segdeploy[rtx])"


def load_rtx() -> Any:
    """The module of TensorRT for RTX: `tensorrt_rtx`, or its bare bindings; MissingPartError without either."""
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as e:
            if (e.name or "").split(".")[0] != name:
                raise MissingPartError(f"TensorRT for RTX cannot start: {e}; {_INSTALL}") from e
        except ImportError as e:
            raise MissingPartError(f"TensorRT for RTX cannot start: {str(e).splitlines()[0]}; {_INSTALL}") from e
    raise MissingPartError(f"TensorRT for RTX is not installed; {_INSTALL}")


@cache
def _logger() -> Any:
    """The one logger that the library accepts per process; errors are kept for the message."""
    trt = load_rtx()

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            log.debug("%s", message)

    return Logger()


def build_engine(onnx_path: Path, spec: ModelSpec, folder: Path, max_batch: int = MAX_BATCH) -> dict[str, Any]:
    """Parse `onnx_path`, build, and write `model.engine` and `engine.lock.json` into `folder`.

    The batch may be 1 to `max_batch`, tuned for 1; height and width are the model's, also where the graph leaves
    them free.

    Returns:
        What the lock file holds.

    Raises:
        MissingPartError: TensorRT for RTX is not installed.
        ExportError: the parser refuses the graph (with node and reason), or the build fails.
    """
    trt = load_rtx()
    logger = _logger()
    logger.errors.clear()
    try:
        builder = trt.Builder(logger)
    except TypeError as e:
        raise MissingPartError(f"TensorRT for RTX cannot start its builder: {_last(logger.errors) or e}") from e
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"{e.node_name()} ({e.node_operator()}): {e.desc()}" for e in found)
        raise ExportError(f"{onnx_path}: TensorRT's parser refuses it: {said or _last(logger.errors)}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and FP32 is meant to be FP32
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    size = (spec.preprocessing.height, spec.preprocessing.width, 3)
    shapes = [(1, *size), (1, *size), (max_batch, *size)]
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"{onnx_path}: TensorRT rejects the profile {shapes}: {_last(logger.errors)}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{onnx_path}: TensorRT cannot build it: {_last(logger.errors)}")
    path = write_bytes(folder / ENGINE_FILE, bytes(plan))
    lock = {
        "schema_version": 1,
        "flavour": "tensorrt_rtx",
        "version": str(trt.__version__),
        "status": NOT_RUN,
        "precision": "fp32",
        "compute_capabilities": "default: Turing to Blackwell, kernels are compiled on first use",
        "profiles": [{"image": {"min": shapes[0], "opt": shapes[1], "max": shapes[2]}}],
        "onnx_sha256": sha256(onnx_path),
        "engine_sha256": sha256(path),
    }
    write_json(folder / LOCK_FILE, lock)
    return lock


def _last(errors: list[str]) -> str:
    return errors[-1].strip() if errors else ""
