"""What is measured: entries (backend x variant x precision) in groups (batch x threads x size)."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from segdeploy.environment import available_cores
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segdeploy.bundle import Artifact, Bundle
    from segdeploy.config.schema import Benchmark
    from segdeploy.plugin import BackendPlugin

_VARIANTS = {
    "": "eager",
    "channels_last": "channels_last",
    "amp": "AMP",
    "compile": "compile",
    "compile_amp": "compile AMP",
}
"""Of torch, and what people call them; in the order of the report."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that take turns, and can be compared."""

    batch: int
    threads: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}, {self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One way of running the model; `reason` says why it cannot run here at all."""

    name: str
    backend: str
    variant: str = ""
    precision: str = "fp32"
    reason: str | None = None


def plan_groups(bundle: Bundle, settings: Benchmark) -> list[Group]:
    """Sizes and thread counts in the order in which they are given, batches from the smallest."""
    model = bundle.spec.preprocessing
    sizes = [tuple(map(int, size.split("x"))) for size in settings.sizes] or [(model.width, model.height)]
    threads = settings.threads or (available_cores(),)
    unique = dict.fromkeys(product(sizes, threads, sorted(settings.batches)))
    return [Group(batch, count, height, width) for (width, height), count, batch in unique]


def plan_entries(
    bundle: Bundle, wanted: Sequence[str] | None, machine: dict[str, Any], device: str, compile_: bool, notes: list[str]
) -> list[Entry]:
    """The rows of every group, torch's first; what is left out goes to `notes`.

    Args:
        bundle: what can be run.
        wanted: backends; None: all that have a file in it and are installed.
        machine: see `segdeploy.environment.describe_machine`.
        device: "auto", "cpu" or "cuda".
        compile_: whether torch.compile is to be measured.
        notes: for what a reader should know.

    Raises:
        MissingPartError: a backend that does not exist.
    """
    plugins = registry.catalogue("backend").plugins
    for name in wanted or ():
        registry.backend(name)  # MissingPartError names the near ones
    on_gpu = device.startswith("cuda") or (device == "auto" and bool(machine["gpus"]))
    entries: list[Entry] = []
    for name in dict.fromkeys(wanted or plugins):
        plugin = plugins[name]
        ready = plugin.available()
        held = any(a.kind == plugin.artifact for a in bundle.artifacts)
        if wanted is None and not (held and ready.ok):
            notes.append(f"{name} was left out: {ready.reason or f'the model has no {plugin.artifact} file'}")
            continue
        reason = None if ready.ok else ready.reason
        for precision in _precisions(bundle, plugin, on_gpu, notes):
            shown = "" if precision == "fp32" else f" {precision}"
            if name != "torch":
                entries.append(Entry(name + shown, name, "", precision, reason))
                continue
            for variant in _torch_variants(on_gpu, machine, compile_, notes):
                entries.append(Entry(f"torch {_VARIANTS[variant]}{shown}", name, variant, precision, reason))
    return sorted(entries, key=lambda e: (e.backend != "torch", e.backend != "onnxruntime"))


def _precisions(bundle: Bundle, plugin: BackendPlugin, on_gpu: bool, notes: list[str]) -> list[str]:
    """Those that the bundle holds for this backend; FP32 where it holds none, whose row then says so."""
    kept = {a.precision for a in bundle.artifacts if a.kind == plugin.artifact}
    held = [p for p in plugin.precisions if p in kept]
    if "fp16" in held and plugin.artifact == "onnx" and not on_gpu:
        notes.append(f"{plugin.name} fp16 was left out: a CPU computes it in FP32, only slower")
        held.remove("fp16")
    return held or ["fp32"]


def _torch_variants(on_gpu: bool, machine: dict[str, Any], compile_: bool, notes: list[str]) -> list[str]:
    # inductor takes CXX, else the first of these.
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if compile_ and not any(shutil.which(c) for c in compilers):
        notes.append("torch compile was left out: no C++ compiler found")
        compile_ = False
    # Whether bfloat16 is faster there is what the row shows; a CPU that has to emulate it loses by far.
    amp = on_gpu or not {"amx_bf16", "avx512_bf16"}.isdisjoint(machine["cpu_features"])
    if not amp:
        notes.append("torch AMP was left out: this CPU has no instructions for bfloat16, and emulates it slowly")
    wanted = {"": True, "channels_last": True, "amp": amp, "compile": compile_, "compile_amp": amp and compile_}
    return [variant for variant in _VARIANTS if wanted[variant]]


def artifact_of(bundle: Bundle, entry: Entry, provider: str | None) -> Artifact | None:
    """The file that a row runs; `provider` is what it ran on, as far as that is known."""
    target = "cpu" if (provider or "CPU").upper().startswith("CPU") else "tensorrt"
    return bundle.find(registry.backend(entry.backend).artifact, entry.precision, target)


def refusal(bundle: Bundle, entry: Entry, group: Group) -> str | None:
    """Why an entry cannot be in a group: its graph has another size or batch for good."""
    file = artifact_of(bundle, entry, None)
    shape = file.about.get("input", {}).get("shape") if file else None
    if file is None or shape is None:
        return None
    wanted = (group.batch, group.height, group.width)
    for what, has, asked in zip(("batch", "height", "width"), shape, wanted, strict=False):
        if isinstance(has, int) and has != asked:
            return f"{file.file} takes {what} {has} only; segdeploy export --dynamic batch,height,width leaves it free"
    return None
