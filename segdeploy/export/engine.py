"""An engine from a typed ONNX file, by TensorRT 10 or 11 on the GPU that it is for, or by TensorRT for RTX anywhere.

One path for all: precision stands in the graph (strong typing), so no flag says it, and TensorRT 11, which has no
such flags, builds what 10 does. Facts behind the calls: https://docs.nvidia.com/deeplearning/tensorrt.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segdeploy.errors import ConfigError, ExportError, MissingPartError
from segdeploy.export import timing_cache
from segdeploy.export.engine_monitor import build_plan
from segdeploy.export.engine_options import EngineOptions, shape_ranges
from segdeploy.export.parser_verdict import refusals_of
from segdeploy.files import sha256, write_bytes, write_text
from segdeploy.runtime.engine_lock import ENGINE_FILE, LOCK_FILE, EngineLock, covers
from segdeploy.runtime.gpu import current_gpu
from segdeploy.runtime.trt import RTX, TENSORRT, pick_flavour

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.engine_lock import ShapeRange
    from segdeploy.runtime.gpu import Gpu
    from segdeploy.runtime.trt import Flavour, Heard

LOG_FILE = "engine.log"
FAILED_LOG_FILE = "engine.failed.log"
RTX_DEFAULT = ("8.0", "8.6", "8.9", "12.0+")
"""What NVIDIA promises of an engine of TensorRT for RTX that names no target; Turing (7.5) must be named."""
_NO_MEMORY = ("outofmemory", "out of memory", "workspace limit")


@dataclass(frozen=True, slots=True)
class Built:
    """A finished engine, still in memory."""

    plan: bytes
    lock: EngineLock
    log: str
    """What the library said."""


def build_engine(onnx_path: Path, spec: ModelSpec, folder: Path, **how: Any) -> EngineLock:
    """Build an engine of `onnx_path` and write it into `folder`; see `make_engine` and `write_engine`."""
    return write_engine(folder, make_engine(onnx_path, spec, folder, **how))


def make_engine(
    onnx_path: Path,
    spec: ModelSpec,
    folder: Path,
    *,
    precision: str = "fp32",
    options: EngineOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Build an engine and write nothing; but one that fails leaves what the library said, `engine.failed.log`.

    Args:
        onnx_path: a graph that holds its types already.
        spec: its model, for height and width where the graph leaves them free.
        folder: for the log.
        precision: of the graph, as its maker says it.
        options: shapes, limits and targets.
        progress: called with (done, total), from another thread.

    Raises:
        MissingPartError: no TensorRT that can build here.
        ConfigError: an option that this TensorRT does not have.
        ExportError: the parser refuses the graph (with node, layer and reason), a profile is impossible, or the build
            fails; out of memory is said to be so.
    """
    options = options or EngineOptions()
    flavour, gpu = pick_flavour(options.flavour), current_gpu()
    targets = _targets(flavour, options, gpu)
    builder = flavour.builder()
    times = timing_cache.cache_file(gpu, flavour.version) if gpu is not None and flavour.name == TENSORRT else None
    with flavour.listening() as heard:
        network = builder.create_network(1 << int(flavour.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = _parse(flavour, network, onnx_path)
        config = _configure(flavour, builder, options)
        profiles = _add_profiles(builder, config, network, options, spec, onnx_path, heard)
        timed = times is not None and timing_cache.attach(config, times)
        plan = build_plan(flavour, builder, network, config, progress)
    del parser  # it owns the weights that the network points to, until the build has ended
    if plan is None:
        write_text(folder / FAILED_LOG_FILE, heard.text())
        raise ExportError(f"{onnx_path}: {_why(flavour, heard, options)}; all of it in {FAILED_LOG_FILE}")
    if times is not None and timed:
        timing_cache.keep(config, times)
    lock = EngineLock(
        flavour=flavour.name,
        version=flavour.version,
        precision=precision,
        gpu=gpu.name if gpu is not None and flavour.name == TENSORRT else "",
        compute_capabilities=targets,
        cuda=gpu.cuda if gpu is not None else "",
        driver=gpu.driver if gpu is not None else "",
        os=platform.system(),
        machine=platform.machine(),
        profiles=profiles,
        optimization_level=options.optimization_level,
        workspace=options.workspace,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        onnx_file=onnx_path.name,
        onnx_sha256=sha256(onnx_path),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
    )
    return Built(plan, lock, f"{flavour.title}, {onnx_path.name}\n{heard.text()}")


def check_options(options: EngineOptions, spec: ModelSpec, *, free_size: bool) -> None:
    """Refuse before a graph is made what its engine would be refused for; nothing is asked where none can be built.

    Args:
        options: of the engine.
        spec: the model's description.
        free_size: whether the graph will leave height and width free.

    Raises:
        ConfigError: an option that this TensorRT does not have. ExportError: impossible shapes.
    """
    size = (spec.preprocessing.height, spec.preprocessing.width)
    sides = (-1, -1) if free_size else size
    shape_ranges(options, {"image": (-1, *sides, 3)}, size, f"{spec.encoder.name} + {spec.decoder.name}")
    try:
        flavour = pick_flavour(options.flavour)
        builder = flavour.builder()
    except MissingPartError:
        return
    _targets(flavour, options, current_gpu())
    _configure(flavour, builder, options)


def write_engine(folder: Path, built: Built) -> EngineLock:
    """Write `engine.log`, `model.engine` and last `engine.lock.json`, each of them whole; and return the lock."""
    write_text(folder / LOG_FILE, built.log)
    write_bytes(folder / ENGINE_FILE, built.plan)
    write_lock(folder, built.lock)
    (folder / FAILED_LOG_FILE).unlink(missing_ok=True)
    return built.lock


def write_lock(folder: Path, lock: EngineLock) -> None:
    """Write `engine.lock.json`, where it does not say just this already."""
    file, text = folder / LOCK_FILE, lock.model_dump_json(indent=2) + "\n"
    if not file.is_file() or file.read_bytes() != text.encode():
        write_text(file, text)


def _targets(flavour: Flavour, options: EngineOptions, gpu: Gpu | None) -> tuple[str, ...]:
    """The compute capabilities that the engine will be for, such as "8.6"."""
    asked = options.compute_capabilities
    if flavour.name == TENSORRT:
        if asked:
            raise ConfigError(
                f"--compute-capability {','.join(asked)}: {flavour.title} builds for the GPU that it finds; "
                "build on that GPU, or take --trt-flavour rtx"
            )
        if gpu is None:
            raise MissingPartError(f"{flavour.title} builds on the GPU that the engine is for, and finds none here")
        same = options.hardware_compatible != "ampere_plus"
        return (gpu.compute_capability,) if same else ("8.0+",)
    known = _rtx_targets(flavour)
    for name in asked:
        if name not in known:
            raise ConfigError(
                f"--compute-capability {name}: {flavour.title} has no such target; it knows {', '.join(known)}"
            )
    if len(set(asked)) != len(asked):
        raise ConfigError(f"--compute-capability {','.join(asked)}: names a target twice")
    return _capabilities(asked)


def _capabilities(targets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name[2:-1]}.{name[-1]}" for name in targets) or RTX_DEFAULT


def _rtx_targets(flavour: Flavour) -> list[str]:
    return [n.lower() for n in flavour.module.ComputeCapability.__members__ if n.startswith("SM")]


def is_target(flavour: Flavour, gpu: Gpu) -> bool:
    """Whether this flavour can build for the GPU: TensorRT for RTX has none of the data centre's latest."""
    return flavour.name == TENSORRT or _target_name(gpu.compute_capability) in _rtx_targets(flavour)


def with_target(targets: tuple[str, ...], gpu: Gpu) -> tuple[str, ...]:
    """Targets of TensorRT for RTX, and the GPU's own where they, or without any the usual ones, leave it out."""
    capabilities = _capabilities(targets)
    if covers(capabilities, gpu):
        return targets
    return tuple(_target_name(c) for c in (*capabilities, gpu.compute_capability))


def _target_name(capability: str) -> str:
    return f"sm{capability.removesuffix('+').replace('.', '')}"


def _parse(flavour: Flavour, network: Any, path: Path) -> Any:
    """The parser, which the network needs as long as it lives."""
    with flavour.listening() as heard:
        parser = flavour.module.OnnxParser(network, flavour.logger)
        if parser.parse_from_file(str(path)):  # a path, so that weights in files of their own are found
            return parser
    said = [str(refusal) for refusal in refusals_of(flavour, parser, _layers(path))]
    raise ExportError(f"{path}: {flavour.title} refuses it: {'; '.join(said) or heard.reason or 'it does not say why'}")


def _layers(path: Path) -> dict[str, str]:
    """The torch module of each node by the node's name, where onnx is installed; the target has none."""
    if importlib.util.find_spec("onnx") is None:
        return {}
    from segdeploy.export.lint_graph import layers_of

    return layers_of(path)


def _configure(flavour: Flavour, builder: Any, options: EngineOptions) -> Any:
    trt, config = flavour.module, builder.create_builder_config()
    # On by default, and it rounds FP32 to 10 bits: an engine called fp32 would not be one. It acts on FP32 alone.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if config.builder_optimization_level != options.optimization_level:
        raise _lacks(flavour, f"--optimization-level {options.optimization_level}")
    if options.workspace is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, options.workspace)
        if config.get_memory_pool_limit(pool) != options.workspace:
            raise _lacks(flavour, f"--workspace of {options.workspace} bytes")
    if options.version_compatible:
        if flavour.name == RTX or not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
            raise _lacks(flavour, "--version-compatible")  # the lean runtime that would go into the plan is not there
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible != "none":
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatible.upper(), None)
        if level is not None:
            config.hardware_compatibility_level = level
        if level is None or config.hardware_compatibility_level != level:
            raise _lacks(flavour, f"--hardware-compatible {options.hardware_compatible}")
    if options.compute_capabilities:
        names = options.compute_capabilities
        config.num_compute_capabilities = len(names)
        members = [getattr(trt.ComputeCapability, name.upper()) for name in names]
        if not all(config.set_compute_capability(member, i) for i, member in enumerate(members)):
            raise _lacks(flavour, f"--compute-capability {','.join(names)}")
    return config


def _lacks(flavour: Flavour, option: str) -> ConfigError:
    return ConfigError(f"{option}: {flavour.title} does not take it; leave it out")


def _add_profiles(
    builder: Any, config: Any, network: Any, options: EngineOptions, spec: ModelSpec, path: Path, heard: Heard
) -> tuple[dict[str, ShapeRange], ...]:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    inputs = {t.name: tuple(t.shape) for t in tensors}
    size = (spec.preprocessing.height, spec.preprocessing.width)
    wanted = shape_ranges(options, inputs, size, str(path))
    for shapes in wanted:
        profile = builder.create_optimization_profile()
        for name, found in shapes.items():
            if -1 in inputs[name]:
                try:
                    profile.set_shape(name, found.min, found.opt, found.max)
                except RuntimeError as e:
                    raise ExportError(f"{path}: impossible shapes of {name}, {found.min} to {found.max}: {e}") from e
        if config.add_optimization_profile(profile) < 0:
            told = ", ".join(f"{name} {found.min} to {found.max}" for name, found in shapes.items())
            raise ExportError(f"{path}: TensorRT rejects the profile {told}: {heard.reason}")
    return wanted


def _why(flavour: Flavour, heard: Heard, options: EngineOptions) -> str:
    """Why a build gave nothing."""
    short = next((e for e in heard.errors if any(word in e.lower() for word in _NO_MEMORY)), None)
    if short is None:
        return f"{flavour.title} cannot build it: {heard.reason or 'it does not say why'}"
    limit = "" if options.workspace is None else f"; --workspace is {options.workspace / 2**20:,.3g} MiB"
    return f"{flavour.title} is out of memory: {short}{limit}; allow more, or build for smaller batches or images"
