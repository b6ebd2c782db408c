"""Engines, built for real by TensorRT for RTX, and by the doubles of TensorRT 10 and 11."""

import hashlib
import importlib.util
import os
import signal
import threading
import time

import onnx
import pytest
from engines import HEIGHT, SPEC, WIDTH, real, write_graph

from segdeploy.errors import ConfigError, ExportError, MissingPartError
from segdeploy.export import engine, timing_cache
from segdeploy.export.engine_options import EngineOptions, Profile, parse_range
from segdeploy.runtime.engine_lock import read_lock
from segdeploy.runtime.gpu import current_gpu
from segdeploy.runtime.trt import RTX, TENSORRT, load

FILES = {"model.engine", "engine.lock.json", "engine.log"}


@pytest.fixture
def onnx_path(tmp_path):
    return write_graph(tmp_path / "model.onnx")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def rtx(**how):
    return EngineOptions(flavour="rtx", **how)


def names(folder):
    return {p.name for p in folder.iterdir()}


# TensorRT for RTX


@real
def test_engine_and_lock_lie_side_by_side(onnx_path, out):
    steps = []
    lock = engine.build_engine(onnx_path, SPEC, out, options=rtx(), progress=lambda *at: steps.append(at))
    assert names(out) == FILES
    plan = (out / "model.engine").read_bytes()
    if current_gpu() is None:  # the library takes it for one of its own plans, and goes on to ask for a driver
        with pytest.raises(MissingPartError, match="driver version is insufficient"):
            load(RTX).deserialize(plan, "model.engine")
    assert lock == read_lock(out / "engine.lock.json")
    assert lock.engine_sha256 == hashlib.sha256(plan).hexdigest()
    assert lock.onnx_sha256 == hashlib.sha256(onnx_path.read_bytes()).hexdigest()
    assert (lock.flavour, lock.version) == ("tensorrt_rtx", load(RTX).module.__version__)
    assert (lock.precision, lock.status, lock.gpu) == ("fp32", "built, not run on hardware", "")
    assert (lock.tf32, lock.compute_capabilities) == (False, ("8.0", "8.6", "8.9", "12.0+"))
    shapes = lock.profiles[0]["image"]
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 16, 24, 3), (1, 16, 24, 3), (8, 16, 24, 3))
    assert "Engine generation completed" in (out / "engine.log").read_text()
    assert steps == sorted(set(steps))
    assert len(steps) > 5
    assert steps[-1] == (1000, 1000)


@real
def test_fixed_batch_needs_no_profile(tmp_path, out):
    path = write_graph(tmp_path / "one.onnx", batch=2)
    lock = engine.build_engine(path, SPEC, out, options=rtx())
    shapes = lock.profiles[0]["image"]
    assert {shapes.min, shapes.opt, shapes.max} == {(2, 16, 24, 3)}
    with pytest.raises(ExportError, match=r"its batch is fixed at 2, and a profile shall have 1,1,4; leave that out"):
        engine.build_engine(path, SPEC, out, options=rtx(profiles=(Profile(batch=(1, 1, 4)),)))


@real
def test_free_height_and_width_and_several_profiles(tmp_path, out):
    path = write_graph(tmp_path / "free.onnx", height="height", width="width")
    small = Profile(batch=(1, 1, 1), height=(8, 16, 32), width=(8, 24, 48))
    lock = engine.build_engine(path, SPEC, out, options=rtx(profiles=(small, Profile(batch=(4, 8, 16)))))
    first, second = (p["image"] for p in lock.profiles)
    assert (first.min, first.opt, first.max) == ((1, 8, 8, 3), (1, 16, 24, 3), (1, 32, 48, 3))
    assert (second.min, second.opt, second.max) == (
        (4, HEIGHT, WIDTH, 3),
        (8, HEIGHT, WIDTH, 3),
        (16, HEIGHT, WIDTH, 3),
    )


@real
def test_a_profile_must_hold_the_size_that_the_model_predicts_at(tmp_path, out):
    path = write_graph(tmp_path / "free.onnx", height="height", width="width")
    for other in (Profile(height=(8, 8, 15)), Profile(height=(17, 32, 32)), Profile(width=(32, 32, 32))):
        with pytest.raises(
            ExportError, match=r"its model takes 16 x 24 \(height x width\), and no profile holds that size"
        ):
            engine.build_engine(path, SPEC, out, options=rtx(profiles=(other,)))
    assert names(out) == set()
    lock = engine.build_engine(path, SPEC, out, options=rtx(profiles=(Profile(height=(32, 32, 32)), Profile())))
    assert [p["image"].max[1] for p in lock.profiles] == [32, HEIGHT]


@real
def test_several_targets_in_one_plan(onnx_path, out):
    log = engine.build_engine(onnx_path, SPEC, out, options=rtx(compute_capabilities=("sm75", "sm120")))
    assert log.compute_capabilities == ("7.5", "12.0")
    config = engine._configure(load(RTX), load(RTX).builder(), rtx(compute_capabilities=("sm75", "sm120")))
    assert [config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)] == ["SM75", "SM120"]


@real
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"compute_capabilities": ("sm86", "sm90")}, ConfigError, r"-capability sm90: .* knows sm75, sm80, .*sm120"),
        ({"compute_capabilities": ("sm86", "sm86")}, ConfigError, "names a target twice"),
        ({"hardware_compatible": "ampere_plus"}, ConfigError, "--hardware-compatible ampere_plus: .* does not take it"),
        ({"version_compatible": True}, ConfigError, "--version-compatible: .* does not take it"),
        ({"profiles": (Profile(height=(8, 8, 8)),)}, ExportError, "its height is fixed at 16, and .* 8,8,8"),
        ({"profiles": (Profile(batch=(4, 1, 8)),)}, ExportError, r"rejects the profile image \(4, 16.*MIN<=OPT<=MAX"),
    ],
)
def test_what_cannot_be_leaves_nothing(onnx_path, out, how, error, words):
    with pytest.raises(error, match=words) as caught:
        engine.build_engine(onnx_path, SPEC, out, options=rtx(**how))
    assert "\n" not in str(caught.value)
    assert names(out) == set()


@real
def test_refused_graph_leaves_nothing(tmp_path, out, monkeypatch):
    path = write_graph(tmp_path / "bad.onnx", refused=True)
    model = onnx.load(path)
    resize = next(n for n in model.graph.node if n.op_type == "Resize")
    resize.metadata_props.add(key="segdeploy.layer", value="decoder.up.0")
    onnx.save(model, path)
    words = r"bad\.onnx: .* refuses it: node_resize_7 \(Resize\)%s: Antialiasing is not supported"
    with pytest.raises(ExportError, match=words % " of decoder.up.0"):
        engine.build_engine(path, SPEC, out, options=rtx())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)  # as on the target
    with pytest.raises(ExportError, match=words % ""):
        engine.build_engine(path, SPEC, out, options=rtx())
    monkeypatch.undo()
    path.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"bad\.onnx: .* refuses it: "):
        engine.build_engine(path, SPEC, out, options=rtx())
    assert names(out) == set()


@real
def test_out_of_memory_keeps_the_older_engine(out, onnx_path, tmp_path):
    """The limit is real: this graph's intermediate results do not fit into it."""
    engine.build_engine(onnx_path, SPEC, out, options=rtx())
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    large = write_graph(tmp_path / "large.onnx", height=512, width=512)
    with pytest.raises(ExportError, match=r"out of memory: .*--workspace is 0\.00391 MiB; allow more, or"):
        engine.build_engine(large, SPEC, out, options=rtx(workspace=1 << 12))
    assert "ERROR " in (out / "engine.failed.log").read_text()
    assert {name: (out / name).read_bytes() for name in FILES} == before
    engine.build_engine(onnx_path, SPEC, out, options=rtx())
    assert names(out) == FILES


@real
def test_what_progress_raises_ends_the_build(onnx_path, out):
    def fail(done, total):
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        engine.build_engine(onnx_path, SPEC, out, options=rtx(), progress=fail)
    assert names(out) == set()


@real
def test_interrupt_ends_the_build(onnx_path, out):
    """Ctrl-C while the library works: the build is told to end, and has ended when the interrupt arrives."""
    steps = []

    def interrupt_once(done, total):
        steps.append(done)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            assert arrived.wait(10)
            time.sleep(0.2)  # the waiting thread hears of it

    arrived = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *how: (arrived.set(), signal.default_int_handler(*how)))
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.build_engine(onnx_path, SPEC, out, options=rtx(), progress=interrupt_once)
    finally:
        signal.signal(signal.SIGINT, before)
    assert names(out) == set()
    assert len(steps) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("engine")]
    assert engine.build_engine(onnx_path, SPEC, out, options=rtx()).status  # the library builds on


# TensorRT 10 and 11


def test_both_majors_build_by_the_same_code(tensorrt, onnx_path, out):
    lock = engine.build_engine(
        onnx_path, SPEC, out, options=EngineOptions(flavour="tensorrt", workspace=1 << 28, optimization_level=5)
    )
    assert (lock.flavour, lock.version) == ("tensorrt", tensorrt.full_version)
    assert (lock.gpu, lock.compute_capabilities) == ("Double RTX", ("8.6",))
    assert lock.cuda == "13.2"
    assert (lock.workspace, lock.optimization_level) == (1 << 28, 5)
    assert load(TENSORRT).deserialize((out / "model.engine").read_bytes(), "engine") is not None


@real
def test_configuration_is_what_was_asked_for():
    is_as_asked(load(RTX))


def test_configuration_is_what_was_asked_for_by_both_majors(tensorrt):
    is_as_asked(load(TENSORRT))


def is_as_asked(loaded):
    trt = loaded.module
    fresh = loaded.builder().create_builder_config()
    assert fresh.get_flag(trt.BuilderFlag.TF32)  # the library's own choice, and not ours
    config = engine._configure(loaded, loaded.builder(), EngineOptions(optimization_level=1, workspace=1 << 20))
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.builder_optimization_level == 1
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 20


def test_compatible_engines(tensorrt, onnx_path, out):
    def built(**how):
        return engine.build_engine(onnx_path, SPEC, out, options=EngineOptions(flavour="tensorrt", **how))

    lock = built(version_compatible=True, hardware_compatible="ampere_plus")
    assert (lock.version_compatible, lock.hardware_compatible) == (True, "ampere_plus")
    assert lock.compute_capabilities == ("8.0+",)
    plan = (out / "model.engine").read_bytes()
    tensorrt.device.capability = (9, 0)
    assert load(TENSORRT).deserialize(plan, "engine", host_code=True) is not None
    assert built(hardware_compatible="same_compute_capability").compute_capabilities == ("9.0",)
    with pytest.raises(ConfigError, match=r"--compute-capability sm86: .* builds for the GPU that it finds; .*rtx"):
        built(compute_capabilities=("sm86",))


def test_a_name_that_the_library_lacks(tensorrt, onnx_path, out, monkeypatch):
    monkeypatch.delattr(tensorrt.module.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY")
    with pytest.raises(ConfigError, match=r"same_compute_capability: TensorRT .* does not take it; leave it out"):
        engine.build_engine(
            onnx_path,
            SPEC,
            out,
            options=EngineOptions(flavour="tensorrt", hardware_compatible="same_compute_capability"),
        )


def test_builds_that_fail(tensorrt, onnx_path, out):
    options = EngineOptions(flavour="tensorrt")
    tensorrt.faults.build = "Error Code 10: Internal Error (Could not find any implementation for node X.)"
    with pytest.raises(ExportError, match=r"cannot build it: Error Code 10: .*node X\.\); all of it in engine.failed"):
        engine.build_engine(onnx_path, SPEC, out, options=options)
    tensorrt.faults.build = "[memory.cpp] Error Code 2: OutOfMemory (Requested size was 99 bytes.)"
    with pytest.raises(ExportError, match=r"is out of memory: .*99 bytes\.\); allow more, or build for smaller"):
        engine.build_engine(onnx_path, SPEC, out, options=options)
    tensorrt.faults.build, tensorrt.faults.parse = "", ("node_x", "DeformConv", "no importer")
    with pytest.raises(ExportError, match=r"refuses it: node_x \(DeformConv\): no importer"):
        engine.build_engine(onnx_path, SPEC, out, options=options)
    assert names(out) == {"engine.failed.log"}


def test_no_driver_no_gpu(tensorrt, onnx_path, out):
    tensorrt.device.driver = 0
    assert current_gpu() is None
    with pytest.raises(MissingPartError, match="builds on the GPU that the engine is for, and finds none here"):
        engine.build_engine(onnx_path, SPEC, out, options=EngineOptions(flavour="tensorrt"))
    assert names(out) == set()


def test_second_build_starts_from_the_times_of_the_first(tensorrt, onnx_path, out, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path / "cache"))
    file = timing_cache.cache_file(current_gpu(), tensorrt.full_version)
    for _ in range(2):
        engine.build_engine(onnx_path, SPEC, out, options=EngineOptions(flavour="tensorrt"))
    head, *entries = file.read_text().split("\n")
    assert head.endswith(f"{tensorrt.full_version} Double RTX (8, 6)")
    assert len(entries) == 1
    other = write_graph(tmp_path / "wider.onnx", width=1000)
    engine.build_engine(other, SPEC, out, options=EngineOptions(flavour="tensorrt"))
    assert len(file.read_text().split("\n")) == 3


def test_ranges_as_people_write_them():
    assert [parse_range(t, "--batch") for t in ("1,4,8", "2,8", "4")] == [(1, 4, 8), (2, 2, 8), (4, 4, 4)]
    for text in ("0,1,2", "4,1,8", "1,8,4", "a", "", "1,2,3,4"):
        with pytest.raises(ConfigError, match=r"--batch .*expected MIN,OPT,MAX, at least 1 and rising"):
            parse_range(text, "--batch")
