"""The runner of engines on doubles of TensorRT 10, 11 and for RTX and of CUDA; last, on the real library."""

import json
import logging
import shutil
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from cuda_double import Device
from onnx import TensorProto, helper
from tensorrt_double import RTX, VERSIONS, TensorRT

from segdeploy.bundle import Bundle, artifact, open_model, write_bundle
from segdeploy.debug import diff, input_of
from segdeploy.errors import DataError, MissingPartError, ModelError
from segdeploy.runtime import trt, trt_session
from segdeploy.runtime.cuda import CudaError, DeviceMemoryError, Event
from segdeploy.runtime.engine_lock import Here
from segdeploy.runtime.gpu import Gpu, current_gpu
from segdeploy.runtime.runner import RunnerOptions
from segdeploy.runtime.trt_runner import available, open_tensorrt

SMALL, LARGE = ((1, 4, 6, 3), (1, 4, 6, 3), (4, 4, 6, 3)), ((2, 8, 8, 3), (2, 8, 8, 3), (3, 16, 12, 3))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """image uint8 (n, h, w, 3) -> mask uint8 (n, h, w): the brightest channel."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["x"], ["i"], axis=3, keepdims=0),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["f"], ["mask"], to=TensorProto.UINT8),
    ]
    values = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["n", "h", "w"]),
    ]
    made = helper.make_graph(nodes, "brightest", values[:1], values[1:])
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


class Library(NamedTuple):
    """What `bundle_of` must know of a library."""

    name: str
    full_version: str


def nvidia_driver():
    return Path("/proc/driver/nvidia/version").exists()


def images(count, height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def build(library, path, profiles, flags=()):
    """The plan's bytes, by the calls of the library."""
    trt = library.module
    logger = library.logger or trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse_from_file(str(path))
    config = builder.create_builder_config()
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *shapes)
        assert config.add_optimization_profile(profile) >= 0
    plan = bytes(builder.build_serialized_network(network, config))
    library.logger = None  # as if built by another process
    return plan


def bundle_of(folder, plan, library, **lock):
    """A folder with the engine and its lock, as a bundle."""
    (folder / "model.engine").write_bytes(plan)
    made = artifact(folder, "model.engine", "engine", "fp32")
    write_lock(folder, library, made.sha256, **lock)
    return Bundle(folder, None, (made,))


def write_lock(folder, library, sha256, **changes):
    gpu = current_gpu() or Gpu("none", "0.0")
    here = Here(library.full_version, gpu)
    shape = {"min": (1, 4, 6, 3), "opt": (1, 4, 6, 3), "max": (4, 4, 6, 3)}
    held = {
        "flavour": library.name,
        "version": library.full_version,
        "precision": "fp32",
        "gpu": gpu.name,
        "compute_capabilities": [gpu.compute_capability],
        "os": here.os,
        "machine": here.machine,
        "profiles": [{"image": shape}],
        "optimization_level": 3,
        "onnx_file": "model.onnx",
        "onnx_sha256": "0" * 64,
        "engine_sha256": sha256,
    }
    (folder / "engine.lock.json").write_text(json.dumps(held | changes))


@pytest.fixture(params=[*VERSIONS, RTX])
def library(request, cuda_device, monkeypatch):
    made = TensorRT(request.param, cuda_device)
    monkeypatch.setitem(sys.modules, made.name, made.module)
    return made


@pytest.fixture
def bundle(library, graph, tmp_path):
    return bundle_of(tmp_path, build(library, graph, [SMALL, LARGE]), library)


def options(**given):
    return RunnerOptions(device="cuda", threads=1, **given)


def modes(runner):
    return {shape: mode.partition(":")[0] for shape, mode in runner.describe()["cuda_graphs"].items()}


def test_labels_and_nothing_left(bundle, library, cuda_device):
    image = images(3)
    before = image.copy()
    with open_tensorrt(bundle, options()) as runner:
        for _ in range(3):
            assert (runner.run(image) == image.argmax(-1)).all()
        alone = runner.run(image[1:2, ::-1, ::-1])
        assert (alone[0, ::-1, ::-1] == image[1].argmax(-1)).all()  # any strides
        assert runner.run(image[:0]).shape == (0, 4, 6)
        described = json.loads(json.dumps(runner.describe()))
    assert (image == before).all()
    assert alone.dtype == np.uint8
    assert described["backend"] == "tensorrt"
    assert described["provider"].endswith("on Double RTX")
    assert described["versions"][library.name] == library.full_version
    assert cuda_device.alive() == {}
    with pytest.raises(RuntimeError, match="outside `with`"):
        runner.run(image)


def test_its_masks_are_compared_with_a_graphs(library, tiny_bundle, tmp_path):
    """By `debug diff`: an engine is on a GPU, and of a precision of its own."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "model.engine").write_bytes(build(library, folder / "model.onnx", [[(1, 64, 96, 3)] * 3]))
    made, content = artifact(folder, "model.engine", "engine", "fp16"), open_model(folder).file
    shape = dict.fromkeys(("min", "opt", "max"), (1, 64, 96, 3))
    write_lock(folder, library, made.sha256, precision="fp16", profiles=[{"image": shape}])
    write_bundle(folder, content.model_copy(update={"artifacts": (*content.artifacts, made)}))
    found = diff(folder, folder, input_of(folder, None), "tensorrt", "fp32")
    assert found.equal
    assert found.agreement > 0.99


def test_device_memory_is_held_inside_with_alone(bundle, cuda_device):
    runner = open_tensorrt(bundle, options())
    assert cuda_device.alive() == {}
    with runner:
        assert cuda_device.alive()["engine"] > 0
        runner.run(images(1))
    assert cuda_device.alive() == {}
    with runner:  # and again
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()
    assert cuda_device.alive() == {}


def test_what_a_run_returned_is_kept(bundle):
    with open_tensorrt(bundle, options()) as runner:
        first, one, two = images(1, seed=1), images(1), images(1, seed=2)
        runner.run(one)  # the first run is special
        found = runner.run(first)
        runner.run(two)
        assert (found == first.argmax(-1)).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("version", [VERSIONS[-1], RTX])
def test_split_batches_are_right_whatever_the_device_does_first(seed, version, graph, tmp_path, monkeypatch):
    device = Device(seed=seed)
    device.install(monkeypatch)
    library = TensorRT(version, device)
    monkeypatch.setitem(sys.modules, library.name, library.module)
    bundle = bundle_of(tmp_path, build(library, graph, [SMALL, LARGE]), library)
    with open_tensorrt(bundle, options()) as runner:
        for count in (4, 17, 18, 5, 1):
            image = images(count, seed=count)
            assert (runner.run(image) == image.argmax(-1)).all(), count
    assert device.problems == []
    assert device.alive() == {}


def test_copies_run_beside_the_computing(bundle, cuda_device, monkeypatch):
    """Of three chunks two are under way before anybody waits for the first."""
    order = []

    def watched(name):
        own = getattr(cuda_device, name)

        def call(*arguments, **named):
            order.append(name)
            return own(*arguments, **named)

        return call

    with open_tensorrt(bundle, options()) as runner:
        runner.run(images(12))
        for name in ("enqueue", "_drain"):
            monkeypatch.setattr(cuda_device, name, watched(name))
        runner.run(images(12))
        a_chunk = 8  # copy, mark, wait for it, mark, compute, mark, copy, mark
        assert order.index("_drain") == 2 * a_chunk


def test_engine_time_is_the_devices_over_all_chunks(bundle):
    with open_tensorrt(bundle, options()) as runner:
        assert runner.engine_seconds is None
        for count, chunks in ((12, 3), (4, 1), (12, 3)):
            runner.run(images(count))
            assert runner.engine_seconds == pytest.approx(chunks * 1.25e-3)  # what the double's clock says of each


def test_batches_below_the_smallest_are_filled_up(bundle):
    image = images(1, 16, 12)  # the profile begins at two
    with open_tensorrt(bundle, options()) as runner:
        assert (runner.run(image) == image.argmax(-1)).all()
        seven = images(7, 9, 11)  # 3 + 3 + 1
        assert (runner.run(seven) == seven.argmax(-1)).all()
        assert set(modes(runner)) == {"2x16x12x3", "3x9x11x3", "2x9x11x3"}


def test_a_shape_outside_every_profile_is_one_line_with_the_ranges(bundle):
    with open_tensorrt(bundle, options()) as runner:
        with pytest.raises(DataError, match=r"4x6x3 to 4x6x3; or 8x8x3 to 16x12x3, found 5x6x3") as e:
            runner.run(images(1, 5, 6))
        with pytest.raises(DataError, match="uint8, found float32"):
            runner.run(images(1).astype(np.float32))
        assert (runner.run(images(1)) == images(1).argmax(-1)).all()
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 2


# CUDA graphs


@pytest.fixture
def standard(tensorrt, graph, tmp_path):
    """Both majors of standard TensorRT, where the capture is ours."""
    return tensorrt, bundle_of(tmp_path, build(tensorrt, graph, [SMALL, LARGE]), tensorrt)


def test_one_graph_for_each_shape_and_lane(standard, cuda_device):
    _, bundle = standard
    with open_tensorrt(bundle, options()) as runner:
        for _ in range(3):
            runner.run(images(12))
        assert modes(runner) == {"4x4x6x3": "graph"}
        assert cuda_device.alive()["graph_exec"] == 2
        assert cuda_device.calls["cudaStreamBeginCapture"] == 2
        runner.run(images(2))
        assert modes(runner) == {"4x4x6x3": "graph", "2x4x6x3": "graph"}
    assert cuda_device.calls["cudaGraphLaunch"] == 9 + 1


def test_eager_makes_no_graph(standard, cuda_device):
    with open_tensorrt(standard[1], options(variant="eager")) as runner:
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()
        assert modes(runner) == {"2x4x6x3": "eager"}
    assert cuda_device.calls["cudaStreamBeginCapture"] == 0


@pytest.mark.parametrize("plant", ["capture_refused", "replay_wrong", "replay_idle", "execute_in_capture"])
def test_a_graph_that_cannot_be_is_told_and_done_without(plant, standard, cuda_device, caplog):
    library, bundle = standard
    setattr(library.faults if plant == "execute_in_capture" else cuda_device, plant, True)
    with open_tensorrt(bundle, options()) as runner:
        for count in (3, 9):
            assert (runner.run(images(count)) == images(count).argmax(-1)).all()
        assert set(modes(runner).values()) == {"eager"}
        words = "not those of the engine" if plant.startswith("replay") else "cannot be captured"
        assert words in runner.describe()["cuda_graphs"]["3x4x6x3"]
        assert "graph_exec" not in cuda_device.alive()
    assert "no CUDA graph" in caplog.text
    assert cuda_device.alive() == {}


def test_shapes_of_long_ago_are_given_back(bundle, cuda_device, monkeypatch):
    monkeypatch.setattr(trt_session, "KEPT_SHAPES", 2)
    with open_tensorrt(bundle, options()) as runner:
        for height in (8, 9, 10, 11, 8):
            image = images(2, height, 8)
            assert (runner.run(image) == image.argmax(-1)).all()
        assert cuda_device.alive()["pinned"] == 2 * 2
    assert cuda_device.alive() == {}


# TensorRT for RTX


@pytest.fixture
def rtx(cuda_device, monkeypatch, graph, tmp_path):
    made = TensorRT(RTX, cuda_device)
    monkeypatch.setitem(sys.modules, made.name, made.module)
    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path / "cache"))
    return made, bundle_of(tmp_path, build(made, graph, [SMALL]), made)


def test_rtx_captures_itself_and_keeps_its_kernels(rtx, tmp_path, cuda_device):
    library, bundle = rtx
    for _ in range(2):
        with open_tensorrt(bundle, options()) as runner:
            assert (runner.run(images(2)) == images(2).argmax(-1)).all()
            assert runner.describe()["cuda_graphs"] == {"2x4x6x3": "graph: by TensorRT for RTX"}
    assert cuda_device.calls["cudaStreamBeginCapture"] == 0
    (kept,) = (tmp_path / "cache" / "kernels").iterdir()
    assert b"(2, 4, 6, 3)" in kept.read_bytes()
    stamp = kept.stat().st_mtime_ns
    with open_tensorrt(bundle, options()) as runner:
        runner.run(images(2))
    assert kept.stat().st_mtime_ns == stamp  # nothing new to keep
    kept.write_bytes(b"of another library")
    with open_tensorrt(bundle, options()) as runner:
        runner.run(images(1))
    assert kept.read_bytes().startswith(b"double-kernels 1.7")
    assert b"foreign" not in kept.read_bytes()
    library.faults.runtime_cache = True
    kept.unlink()
    with open_tensorrt(bundle, options()) as runner:
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()
    assert not kept.exists()


@pytest.mark.parametrize("harm", ["no folder", "not a file"])
def test_kernels_that_cannot_be_kept_cost_no_result(harm, rtx, tmp_path, caplog):
    caplog.set_level(logging.INFO, "segdeploy")
    _, bundle = rtx
    if harm == "no folder":
        (tmp_path / "cache").write_text("")
    else:
        with open_tensorrt(bundle, options()) as runner:
            runner.run(images(1))
        (kept,) = (tmp_path / "cache" / "kernels").iterdir()
        kept.unlink()
        kept.mkdir()
    with open_tensorrt(bundle, options()) as runner:
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()
    assert "the compiled kernels are not kept: " in caplog.text


def test_rtx_without_its_strategy_is_captured_by_us(rtx, cuda_device):
    library, bundle = rtx
    library.faults.graph_strategy = True
    with open_tensorrt(bundle, options()) as runner:
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()
        assert runner.describe()["cuda_graphs"] == {"2x4x6x3": "graph"}
    assert cuda_device.calls["cudaStreamBeginCapture"] == 1


# What goes wrong


@pytest.mark.parametrize(
    ("plant", "error", "words"),
    [
        ("shape", ModelError, "refuses the shape 2x4x6x3"),
        ("infer", ModelError, "the shape of image is not known"),
        ("address", ModelError, "refuses the address of image"),
        ("execute", ModelError, "the engine cannot run: .*launch failure"),
        ("context", DeviceMemoryError, r"no room for an execution context: .*OutOfMemory.*use a smaller batch"),
    ],
)
def test_every_refusal_is_one_line_and_leaves_nothing(plant, error, words, bundle, library, cuda_device):
    with open_tensorrt(bundle, options()) as runner:
        empty = cuda_device.alive()
        setattr(library.faults, plant, True)
        with pytest.raises(error, match=words) as e:
            runner.run(images(2))
        assert "\n" not in str(e.value)
        assert e.value.exit_code == 2
        assert cuda_device.alive() == empty
        setattr(library.faults, plant, False)
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()  # the runner can be used again
    assert cuda_device.alive() == {}


def test_a_profile_that_cannot_be_chosen(bundle, library, cuda_device):
    library.faults.profile = True
    with open_tensorrt(bundle, options()) as runner:
        assert (runner.run(images(1)) == images(1).argmax(-1)).all()  # profile 0 needs no choice
        with pytest.raises(ModelError, match="profile 1 cannot be chosen"):
            runner.run(images(2, 8, 8))
    assert cuda_device.alive() == {}


def test_a_failure_between_chunks_leaves_the_next_run_right(bundle, library, monkeypatch):
    own, calls = library.classes["IExecutionContext"].execute_async_v3, []

    def third_fails(*arguments):
        calls.append(1)
        return len(calls) != 3 and own(*arguments)

    with open_tensorrt(bundle, options(variant="eager")) as runner:
        monkeypatch.setattr(library.classes["IExecutionContext"], "execute_async_v3", third_fails)
        with pytest.raises(ModelError, match="the engine cannot run: it does not say why"):
            runner.run(images(12))
        assert (runner.run(images(12, seed=3)) == images(12, seed=3).argmax(-1)).all()


@pytest.mark.parametrize("place", ["record", "synchronise"])
def test_an_interrupt_waits_for_the_device_before_memory_goes(place, bundle, monkeypatch, cuda_device):
    """After a copy to the device was begun; while the labels are waited for."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with open_tensorrt(bundle, options()) as runner:
        runner.run(images(2))
        with monkeypatch.context() as patch:
            patch.setattr(Event, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                runner.run(images(2))
        assert cuda_device.problems == []
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()
    assert cuda_device.alive() == {}


@pytest.mark.parametrize("room", [1 << 19, (1 << 20) + (1 << 19), (3 << 20) + 100])
def test_no_room_says_how_much_was_asked(room, bundle, cuda_device):
    """For the engine, for its scratch memory, for a batch."""
    cuda_device.memory = room
    with (
        pytest.raises((DeviceMemoryError, ModelError), match=r"MiB were asked for|OutOfMemory") as e,
        open_tensorrt(bundle, options()) as runner,
    ):
        runner.run(images(4))
    assert "\n" not in str(e.value)
    del e
    assert cuda_device.alive() == {}


def test_a_broken_device_keeps_its_traceback(bundle, cuda_device):
    with pytest.raises(CudaError, match="cudaErrorIllegalAddress"), open_tensorrt(bundle, options()) as runner:  # noqa: PT012
        runner.run(images(1))
        cuda_device.blocks.clear()
        runner.run(images(1))
    cuda_device.problems.clear()


def test_two_threads_take_turns(bundle):
    wrong = []

    def work(seed):
        for i in range(5):
            image = images(6, seed=seed * 10 + i)
            wrong.extend([seed] if (runner.run(image) != image.argmax(-1)).any() else [])

    with open_tensorrt(bundle, options()) as runner:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_every_rule_of_the_kit_is_kept(cuda_device, monkeypatch, tmp_path):
    """Built by our builder, run by our runner; the labels are torch's. (The builder's tests take both majors.)"""
    import twins

    from segdeploy.conformance.check import check_part, judge_of
    from segdeploy.runtime.trt_runner import segdeploy_register_backends

    monkeypatch.setenv("SEGDEPLOY_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", TensorRT("11.4", cuda_device).module)
    cuda_device.memory = 1 << 28
    segdeploy_register_backends((found := []).append)
    outcomes = check_part(judge_of(twins.part("backend", found[0]))).outcomes
    assert [(o.rule.name, o.state, o.detail) for o in outcomes if o.state != "passed"] == []
    assert cuda_device.alive() == {}


# What is refused before TensorRT sees it


def test_refusals_before_anything_runs(bundle, library, cuda_device):
    for given, words in (
        ({"variant": "fast"}, "has no variant 'fast'"),
        ({"device": "cpu"}, "runs on cuda alone"),
    ):
        with pytest.raises(MissingPartError, match=words):
            open_tensorrt(bundle, RunnerOptions(**given))
    with pytest.raises(ModelError, match="holds no engine of precision fp16; run segdeploy build"):
        open_tensorrt(bundle, options(precision="fp16"))
    assert cuda_device.alive() == {}
    assert library.logger is None


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ({"version": "10.9.0.34"}, r"built with tensorrt\w* 10\.9\.0\.34, here is \d+\.\d+"),
        (
            {"gpu": "NVIDIA A100", "compute_capabilities": ["8.0"]},
            r"built on NVIDIA A100.*8\.0, here is Double RTX .*8\.6",
        ),
        ({"machine": "sparc"}, "built on sparc, here is"),
        ({"engine_sha256": "0" * 64}, "the engine's bytes are not those that were built"),
    ],
)
def test_an_engine_of_another_machine_is_refused_before_it_is_read(lock, words, graph, library, tmp_path):
    bundle = bundle_of(tmp_path, b"never looked at", library, **lock)
    with pytest.raises(ModelError, match=words) as e:
        open_tensorrt(bundle, options())
    assert "\n" not in str(e.value)
    assert "segdeploy build" in str(e.value)
    assert library.logger is None


def test_what_the_lock_lets_through_tensorrt_may_still_reject(graph, library, cuda_device, tmp_path):
    plan = build(library, graph, [SMALL])
    for number, broken in enumerate((b"no plan at all", plan[:40])):
        (folder := tmp_path / str(number)).mkdir()
        with (
            pytest.raises(ModelError, match=r"model\.engine: TensorRT.* rejects this engine: "),
            open_tensorrt(bundle_of(folder, broken, library), options()),
        ):
            pass
    assert cuda_device.alive() == {}


def test_code_for_the_cpu_runs_only_if_asked(graph, cuda_device, monkeypatch, tmp_path):
    plan = build(TensorRT("10.16", cuda_device), graph, [SMALL], flags=["VERSION_COMPATIBLE"])
    library = TensorRT("11.4", cuda_device)
    monkeypatch.setitem(sys.modules, "tensorrt", library.module)
    lock = {"version": "10.16.1.11", "version_compatible": True}
    bundle = bundle_of(tmp_path, plan, library, **lock)
    with pytest.raises(ModelError, match=r"brings code for the CPU; .* run it with --allow-host-code") as e:
        open_tensorrt(bundle, options())
    assert "\n" not in str(e.value)
    with open_tensorrt(bundle, options(host_code=True)) as runner:
        assert (runner.run(images(2)) == images(2).argmax(-1)).all()


def test_foreign_engines_are_refused(library, cuda_device, tmp_path):
    """One whose input is not an image of bytes."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in ("x", "y")]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    bundle = bundle_of(tmp_path, build(library, tmp_path / "m.onnx", []), library)
    with (
        pytest.raises(ModelError, match=r"expected an engine image uint8\[N,H,W,3\] -> mask uint8"),
        open_tensorrt(bundle, options()),
    ):
        pass
    assert cuda_device.alive() == {}


def test_bytes_that_changed_after_the_bundle_was_opened_never_run(bundle):
    runner = open_tensorrt(bundle, options())
    with (bundle.path / "model.engine").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match="its bytes have changed since"), runner:
        pass


def test_a_missing_lock_is_one_line(bundle):
    (bundle.path / "engine.lock.json").unlink()
    with pytest.raises(ModelError, match=r"engine\.lock\.json: is missing"):
        open_tensorrt(bundle, options())


def test_availability_is_about_this_machine(library, cuda_device):
    assert available().ok
    cuda_device.driver = 0
    assert "no NVIDIA driver" in available().reason


# The real library


@pytest.fixture
def real_rtx(graph, tmp_path):
    """A bundle with an engine that the real TensorRT for RTX built, and the library."""
    pytest.importorskip("tensorrt_rtx_bindings")
    flavour = trt.load("tensorrt_rtx")
    module, builder = flavour.module, flavour.builder()
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert module.OnnxParser(network, flavour.logger).parse_from_file(str(graph))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *SMALL)
    assert config.add_optimization_profile(profile) >= 0
    plan = builder.build_serialized_network(network, config)
    return flavour, bytes(plan)


def test_the_real_library_without_a_driver_ends_in_one_line(real_rtx, tmp_path):
    flavour, plan = real_rtx
    if available().ok:
        pytest.skip("this machine has a GPU")
    made = Library(flavour.name, flavour.version)
    bundle = bundle_of(tmp_path, plan, made)
    with pytest.raises(MissingPartError, match="no GPU that CUDA can use here") as e:
        open_tensorrt(bundle, options())
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)


def test_the_real_library_says_itself_that_the_driver_is_missing(real_rtx, cuda_device, tmp_path):
    """The double stands for CUDA alone; the engine goes to the real library."""
    if nvidia_driver():
        pytest.skip("this machine has a driver")
    flavour, plan = real_rtx
    bundle = bundle_of(tmp_path, plan, Library(flavour.name, flavour.version))
    with (
        pytest.raises(MissingPartError, match=r"TensorRT for RTX 1\..* finds no NVIDIA driver") as e,
        open_tensorrt(bundle, options()),
    ):
        pass
    assert "\n" not in str(e.value)
    assert cuda_device.alive() == {}
