"""What an engine was built for, beside the engine: asked before its bytes are given to TensorRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy.errors import ModelError
from segdeploy.frozen import Frozen

if TYPE_CHECKING:
    from pathlib import Path

    from segdeploy.runtime.gpu import Gpu

LOCK_FILE = "engine.lock.json"


class EngineLock(Frozen):
    """What `engine.lock.json` holds."""

    schema_version: int
    flavour: str
    version: str
    engine_sha256: str
    gpu: str = ""
    compute_capability: str = ""
    """Such as "8.6"; empty: any that the flavour runs on."""
    hardware_compatibility: str = "NONE"
    version_compatible: bool = False
    about: dict[str, Any] = {}

    def refusal(self, version: str, gpu: Gpu) -> str:
        """Why the engine cannot run with this TensorRT on this GPU, naming both; empty when it may."""
        return ""


def read_lock(path: Path) -> EngineLock:
    """The lock; ModelError where it is missing or not one."""
    try:
        return EngineLock.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as e:
        raise ModelError(f"{path}: {e}") from e
