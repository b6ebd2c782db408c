"""The GPU that a program here would use, without torch: what an engine's lock is compared with."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU; `driver` and `cuda` are empty where nothing says them."""

    name: str
    compute_capability: str
    """Such as "8.6"."""
    driver: str = ""
    """The driver's version, such as 580.65.06."""
    cuda: str = ""
    """The newest CUDA that the driver runs, such as 13.0."""


def current_gpu() -> Gpu | None:
    """The first GPU that CUDA sees (`CUDA_VISIBLE_DEVICES` decides), else the first of nvidia-smi; None without one."""
    try:
        from cuda.bindings import runtime as cuda
    except ImportError:
        return _of_nvidia_smi()
    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or not count:
        return None
    error, device = cuda.cudaGetDeviceProperties(0)
    if error != cuda.cudaError_t.cudaSuccess:
        return None
    _, version = cuda.cudaDriverGetVersion()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    newest = f"{version // 1000}.{version % 1000 // 10}"
    return Gpu(name.rstrip("\0"), f"{device.major}.{device.minor}", _driver(), newest)


def used_memory() -> float | None:
    """Memory of the first GPU that all programs together use, MiB, as nvidia-smi says; None without one."""
    words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout.split()[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def _driver() -> str:
    """Of Linux's kernel module, whose second word that looks like a version it is."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
    return next((word for word in first.split() if word[0].isdigit() and "." in word), "")


def _of_nvidia_smi() -> Gpu | None:
    words = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
        name, capability, driver = (part.strip() for part in done.stdout.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    return Gpu(name, capability, driver)
