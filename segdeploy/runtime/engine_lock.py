"""`engine.lock.json` beside an engine: what it was built from and for, and why it does not fit somewhere else.

The engine itself stays a plain plan, which NVIDIA's own tools open. TensorRT says little when it rejects a plan, and
nothing when a plan of a similar GPU runs badly; so the lock is asked first.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt, ValidationError

from segdeploy.errors import ModelError
from segdeploy.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from segdeploy.runtime.gpu import Gpu

LOCK_FILE = "engine.lock.json"
ENGINE_FILE = "model.engine"
NOT_RUN = "built, not run on hardware"

Shape = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Compatibility = Literal["none", "ampere_plus", "same_compute_capability"]


class ShapeRange(Frozen, use_attribute_docstrings=False):
    """(batch, height, width, 3): the least, the one that kernels are chosen for, and the most."""

    min: Shape
    opt: Shape
    max: Shape


class EngineLock(Frozen, use_attribute_docstrings=False):
    """What the file holds."""

    schema_version: Literal[1] = 1
    flavour: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    """Of the TensorRT that built it."""
    precision: str
    """Of the graph that it was built from, which alone decides it."""
    status: str = NOT_RUN
    """The verification's result in words, or that it was not run."""
    gpu: str = ""
    """The GPU that it was built on; empty: on none, for `compute_capabilities`."""
    compute_capabilities: tuple[str, ...]
    """GPUs that it is for, such as "8.6"; "12.0+" is that and later."""
    cuda: str = ""
    """The newest CUDA of the driver it was built with."""
    driver: str = ""
    os: str
    machine: str
    """The processor's architecture."""
    profiles: tuple[dict[str, ShapeRange], ...]
    """For each profile the shapes of each input."""
    optimization_level: int
    workspace: int | None = None
    """Limit in bytes; null: all of the device's memory."""
    tf32: bool = False
    version_compatible: bool = False
    """Also runs on later versions, with code for the CPU inside (`engine_host_code_allowed`)."""
    hardware_compatible: Compatibility = "none"
    onnx_file: str
    onnx_sha256: str
    engine_sha256: str
    verification: tuple[dict[str, Any], ...] = ()
    """One record for each comparison with onnxruntime in FP32, on the machine of `gpu`."""

    @property
    def built_by(self) -> str:
        """Flavour and version, for people."""
        return f"{'TensorRT for RTX' if self.flavour == 'tensorrt_rtx' else 'TensorRT'} {self.version}"

    def refusal(self, version: str, gpu: Gpu | None) -> str:
        """Why it cannot run with this TensorRT on this GPU, in words; empty when it may."""
        return "; ".join(check(self, Here(version, gpu)))


@dataclass(frozen=True, slots=True)
class Here:
    """A machine that an engine shall run on; without a GPU, all that concerns GPUs is left out."""

    version: str
    """Of the engine's flavour of TensorRT."""
    gpu: Gpu | None
    os: str = field(default_factory=platform.system)
    machine: str = field(default_factory=platform.machine)
    engine_sha256: str = ""
    """Of the file that lies beside the lock; empty: not looked at."""
    onnx_sha256: str = ""
    """Of the graph that the engine should come from; empty: not looked at."""


def check(lock: EngineLock, here: Here) -> list[str]:
    """Why the engine does not fit, each reason with what it was built for and what is here; empty: it fits."""
    reasons = []
    if here.engine_sha256 and here.engine_sha256 != lock.engine_sha256:
        reasons.append("the engine's bytes are not those that were built")
    if here.onnx_sha256 and here.onnx_sha256 != lock.onnx_sha256:
        reasons.append(f"{lock.onnx_file} has changed since")
    if here.version != lock.version and not (lock.version_compatible and _is_later(here.version, lock.version)):
        reasons.append(f"built with {lock.flavour} {lock.version}, here is {here.version}")
    if lock.flavour == "tensorrt" and here.os != lock.os:  # plans of TensorRT for RTX run on Linux and Windows
        reasons.append(f"built on {lock.os}, here is {here.os}")
    if here.machine != lock.machine:
        reasons.append(f"built on {lock.machine}, here is {here.machine}")
    if here.gpu is not None:
        reasons += _other_gpu(lock, here.gpu)
    return reasons


def _other_gpu(lock: EngineLock, gpu: Gpu) -> list[str]:
    found = f"{gpu.name} (compute capability {gpu.compute_capability})"
    if not covers(lock.compute_capabilities, gpu):
        built = f"on {lock.gpu}, " if lock.gpu else ""
        return [f"built {built}for compute capability {', '.join(lock.compute_capabilities)}, here is {found}"]
    # Kernels are chosen by their time on one GPU: TensorRT warns of errors on another model of the same capability.
    if lock.flavour == "tensorrt" and lock.hardware_compatible == "none" and gpu.name != lock.gpu:
        return [f"built on {lock.gpu}, here is {found}"]
    return []


def covers(capabilities: Iterable[str], gpu: Gpu) -> bool:
    """Whether one of the compute capabilities, such as "8.6" or "12.0+", is the GPU's."""
    found = numbers(gpu.compute_capability)
    return any(found >= numbers(c.removesuffix("+")) if c.endswith("+") else found == numbers(c) for c in capabilities)


def numbers(version: str) -> tuple[int, ...]:
    """A version's numbers, to compare: (11, 4, 0, 106) for 11.4.0.106."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _is_later(version: str, than: str) -> bool:
    return numbers(version) > numbers(than)


def parse_lock(text: str | bytes, name: str) -> EngineLock:
    """JSON to a lock; `name` stands for the file in the ModelError that bad input raises."""
    try:
        return EngineLock.model_validate_json(text)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ModelError(
            f"{name}: not the lock of an engine of this segdeploy: {place}: {first['msg']}; build again"
        ) from e


def read_lock(path: Path) -> EngineLock:
    """The lock in a file; ModelError where there is none, or another thing."""
    if not path.is_file():
        raise ModelError(f"{path}: is missing; an engine is not opened without it, build again")
    return parse_lock(path.read_bytes(), str(path))
