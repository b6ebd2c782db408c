"""A double of `tensorrt` 10.16 or 11.4, or of `tensorrt_rtx` 1.7, that builds and runs.

Names come from the listing, numbers from onnxruntime:

    device = cuda_double.Device()
    trt = TensorRT("11.4", device)      # trt.module stands for `tensorrt`, trt.faults plants failures

A plan holds the ONNX file, the profiles, the version and the GPU. `execute_async_v3` puts onnxruntime's run on the
CUDA double's stream, from device memory to device memory. So code that is right against both gives true masks.
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_build
import tensorrt_run
from cuda_double import Device
from pybind import Module
from tensorrt_values import NUMPY

VERSIONS = ("10.16", "11.4")
RTX = "rtx-1.7"

# Enums whose members have an order; read in the real module of TensorRT for RTX, made from the same source.
ORDERED = (
    "BuilderFlag", "NetworkDefinitionCreationFlag", "TensorFormat", "ExecutionContextAllocationStrategy",
    "EngineCapability", "TacticSource", "PreviewFeature", "SerializationFlag", "ILogger.Severity", "CudaGraphStrategy",
)  # fmt: skip


@dataclass
class Faults:
    """What shall go wrong."""

    no_driver: bool = False
    parse: tuple[str, str, str] | None = None
    """Node, operator and reason of a parser error."""
    build: str = ""
    """The logger's words of a build that gives None."""
    context: bool = False
    """No device memory for an execution context."""
    address: bool = False
    shape: bool = False
    infer: bool = False
    """`infer_shapes` names an input as not specified."""
    execute: bool = False
    execute_in_capture: bool = False
    profile: bool = False
    graph_strategy: bool = False
    """TensorRT for RTX does not take the strategy; Python hears nothing."""
    runtime_cache: bool = False


@dataclass
class TensorRT:
    """One loaded library: its module, the device that it sees, its one logger."""

    version: str
    device: Device = field(default_factory=Device)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        facts = _facts(self.version)
        self.full_version: str = facts["version"]
        self.name = "tensorrt_rtx" if self.version == RTX else "tensorrt"
        self.always_typed = not self.full_version.startswith("10.")
        self.logger: Any = None
        behaviour = {
            label: functools.partial(does, self)
            for part in (tensorrt_build.BEHAVIOUR, tensorrt_run.BEHAVIOUR)
            for label, does in part.items()
        }
        made = Module(self.name, facts, behaviour, ORDERED)
        self.module, self.classes = made.module, made.classes
        self.module.nptype = _nptype
        self.module.volume = lambda shape: int(np.prod(tuple(shape)))

    def member(self, enum: str, name: str) -> Any:
        """A member of an enum."""
        return self.classes[enum].__members__[name]

    def say(self, severity: str, text: str) -> None:
        """One line to the one logger."""
        if self.logger is not None:
            self.logger.log(self.member("ILogger.Severity", severity), text)

    def start(self, logger: Any) -> None:
        """What a builder and a runtime begin with: the first logger of the process stays, and a driver is needed."""
        if self.logger is None:
            self.logger = logger
        elif logger is not self.logger:
            self.say("WARNING", "The logger passed in differs from one already registered; it is ignored.")
        if self.faults.no_driver or not self.device.driver:
            self.say("ERROR", "CUDA initialization failure with error: 35. Please check your CUDA installation.")
            raise TypeError("pybind11::init(): factory function returned nullptr")


@functools.cache
def _facts(version: str) -> dict:
    return json.loads(Path(__file__).with_name(f"tensorrt_{version}.json").read_text())


def _nptype(kind: Any) -> type:
    if kind.name not in NUMPY:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return NUMPY[kind.name]
