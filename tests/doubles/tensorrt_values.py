"""Values that builder and runtime share: plans, host memory, types and shapes."""

import ctypes
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MAGIC = b"double-plan\0"
NUMPY = {
    "FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "BOOL": np.bool_, "UINT8": np.uint8,
    "INT64": np.int64,
}  # fmt: skip
ONNX_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF", 16: "BF16"}


@dataclass
class Plan:
    """A serialized engine."""

    library: str
    version: str
    capability: tuple[int, int]
    gpu: str
    profiles: list[dict[str, list[list[int]]]]
    onnx: bytes
    version_compatible: bool = False
    hardware: str = "NONE"

    def to_bytes(self) -> bytes:
        head = json.dumps(asdict(self) | {"onnx": len(self.onnx)}).encode()
        return MAGIC + len(head).to_bytes(8, "little") + head + self.onnx


def read_plan(data: bytes) -> Plan | None:
    """The plan in `data`; None where it is none, or a part of one."""
    if not data.startswith(MAGIC):
        return None
    start = len(MAGIC) + 8
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    if len(data) < end:
        return None
    head = json.loads(data[start:end])
    if head["onnx"] != len(data) - end:
        return None
    return Plan(**head | {"capability": tuple(head["capability"]), "onnx": data[end:]})


def host_memory(lib: Any, data: bytes) -> Any:
    """An `IHostMemory`: a buffer that knows `nbytes` and `dtype` and has no `len()`; a ctypes structure is just so."""

    class IHostMemory(ctypes.Structure):
        _fields_ = [("data", ctypes.c_ubyte * len(data))]
        __slots__ = ()
        nbytes = property(lambda _: len(data))
        dtype = property(lambda _: lib.member("DataType", "INT8"))

    return IHostMemory.from_buffer_copy(data)


def doing(table: dict[str, Callable]) -> Callable:
    """A decorator that enters a function into `table` under one or more labels."""

    def labelled(*labels: str) -> Callable:
        def enter(function: Callable) -> Callable:
            table.update(dict.fromkeys(labels, function))
            return function

        return enter

    return labelled
