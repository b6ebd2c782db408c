"""ONNX Runtime's execution providers: which one an option means, how it is set up, and that it has the work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segdeploy.data.facts_cache import cache_folder
from segdeploy.errors import MissingPartError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from segdeploy.bundle import Artifact

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
VARIANTS = ("", "tensorrt")
TENSORRT_BATCH = 8
"""The largest batch of TensorRT's profile; larger ones go in parts."""

# Integers that say how large a tensor is. onnxruntime keeps them on the CPU on purpose, which is why
# `session.disable_cpu_ep_fallback` cannot be set for graphs with free sizes: it would refuse them.
_SHAPE_OPERATORS = {"Shape", "Concat", "Gather", "Slice", "Unsqueeze", "Squeeze", "Cast"}


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider, and the options that it is opened with."""

    name: str
    options: dict[str, str] = field(default_factory=dict)


def candidates(device: str, variant: str, present: Collection[str]) -> list[str]:
    """Names of the providers to try, in order; more than one for device "auto" alone.

    Raises:
        MissingPartError: a device or variant that onnxruntime has not, or that this onnxruntime has not.
    """
    if variant not in VARIANTS:
        raise MissingPartError(f"backend onnxruntime has no variant {variant!r}; it has 'tensorrt'")
    if device not in ("auto", "cpu", "cuda"):
        raise MissingPartError(f"device {device!r}: onnxruntime here knows cpu and cuda")
    if variant == "tensorrt" and device == "cpu":
        raise MissingPartError("variant tensorrt runs on a GPU; use --device cuda, or no variant")
    if variant == "tensorrt":
        wanted = [TENSORRT]
    elif device == "auto":
        wanted = [CUDA, CPU] if CUDA in present else [CPU]
    else:
        wanted = [CUDA if device == "cuda" else CPU]
    if wanted[-1] not in present:
        what = "variant tensorrt" if variant else f"device {device}"
        raise MissingPartError(
            f"{what}: this onnxruntime has no {wanted[-1]}; pip install 'segdeploy[gpu]' in a fresh environment"
        )
    return wanted


def provider(name: str, graph: Artifact, size: tuple[int, int]) -> Provider:
    """The provider, set up for a graph and images of (height, width) `size`.

    TensorRT builds with the types of the graph as long as none of its precision flags is set. Its engines lie in
    segdeploy's cache folder, one subfolder for each graph: they are code for this GPU.
    """
    if name == CUDA:
        return Provider(CUDA, {"use_tf32": "0"})  # on by default, and FP32 is meant to be FP32
    if name != TENSORRT:
        return Provider(name)
    folder = cache_folder() / "onnxruntime-tensorrt" / graph.sha256[:16]
    height, width = size
    shapes = {
        key: f"image:{batch}x{height}x{width}x3" for key, batch in (("min", 1), ("opt", 1), ("max", TENSORRT_BATCH))
    }
    return Provider(
        TENSORRT,
        {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
            **{f"trt_profile_{key}_shapes": shape for key, shape in shapes.items()},
        },
    )


def check_assignment(session: Any, name: str, path: Path) -> None:
    """Refuse a session whose real work was put on another provider; shape arithmetic on the CPU is by design.

    Raises:
        MissingPartError: an operator was left to another provider, or this onnxruntime cannot say.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise MissingPartError(f"{path}: this onnxruntime cannot say which provider runs what; install a newer one")
    parts = [p for p in session.get_provider_graph_assignment_info() if p.ep_name != name]
    strays = {node.op_type for part in parts for node in part.get_nodes()} - _SHAPE_OPERATORS
    if strays:
        raise MissingPartError(
            f"{path}: {name} leaves {', '.join(sorted(strays))} to the CPU; "
            "a newer onnxruntime-gpu may have them, or use --device cpu"
        )
