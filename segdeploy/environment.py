"""Which machine and which versions a number comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "segdeploy", "numpy", "pillow", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu",
    "tensorrt", "tensorrt-rtx-cu13-bindings",
)  # fmt: skip

# Limit, use, and the part of the use that the system takes back when it needs it: cgroup v2 and v1.
_CONTAINER_MEMORY = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number; packages that are not there are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory (GiB), GPUs, system, Python and load average, as JSON-ready values."""
    return {
        "cpu": _cpu_name(),
        "cpu_features": _cpu_features(),
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "packages": versions(),
    }


def _cpuinfo(key: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    flags = set(_cpuinfo("flags").split())
    return [name for name in known if name in flags]


def _gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi says; empty without one."""
    words = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def free_memory() -> int:
    """Bytes of memory that a new program could have, in the container's limit; a large number where nothing says."""
    free = [room for room in map(_container_room, _CONTAINER_MEMORY) if room is not None]
    try:  # unlike sysconf's free pages, this counts the page cache that would make room
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024)
    except (OSError, StopIteration, ValueError):
        pass
    return min(free, default=1 << 62)


def _container_room(names: tuple[str, str, str, str]) -> int | None:
    folder = Path(names[0])
    try:
        limit, used = (int((folder / name).read_text()) for name in names[1:3])  # v2 says "max" where there is none
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get(names[3], 0)))
    except (OSError, ValueError):
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks, of those that torchrun started; alone it is."""
    return os.environ.get("RANK", "0") == "0"
