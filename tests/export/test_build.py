"""`segdeploy build`: by TensorRT for RTX for real, and with its runner on doubles of TensorRT 10, 11 and of a GPU."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from engines import SPEC, real, write_graph
from tensorrt_double import RTX as DOUBLE_RTX
from tensorrt_double import TensorRT

from segdeploy import bundle
from segdeploy.bundle import BundleFile, artifact, open_model
from segdeploy.data.demo import generate
from segdeploy.errors import ExportError, GateError, MissingPartError, ModelError
from segdeploy.export.build import Changes, add_engine, build, lightest, options_of
from segdeploy.export.engine_options import EngineOptions, Profile
from segdeploy.files import sha256
from segdeploy.runtime.engine_lock import read_lock
from segdeploy.runtime.runner import open_runner

RTX = Changes(flavour="rtx", precision="fp32")


@pytest.fixture
def folder(tmp_path):
    """A bundle with a graph, and a second one, called fp16, that says other classes."""
    (tmp_path / "bundle").mkdir()
    write_graph(tmp_path / "bundle" / "model.onnx")
    write_graph(tmp_path / "bundle" / "model.fp16.onnx", sign=-1)
    held = [
        artifact(tmp_path / "bundle", "model.onnx", "onnx", "fp32"),
        artifact(tmp_path / "bundle", "model.fp16.onnx", "onnx", "fp16"),
    ]
    return bundle.write_bundle(tmp_path / "bundle", BundleFile(spec=SPEC, artifacts=tuple(held))).path


def state(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@real
def test_built_once_and_again_where_something_changed(folder):
    first = build(folder, RTX)
    assert first.reasons == ("there is no engine yet",)
    assert first.lock.status == "built, not run on hardware"
    assert first.lock == read_lock(folder / "engine.lock.json")
    listed = open_model(folder).find("engine")
    assert (listed.sha256, listed.precision) == (first.lock.engine_sha256, "fp32")
    assert listed.about == first.lock.model_dump(mode="json")
    before = state(folder)
    again = build(folder, RTX)
    assert (again.reasons, again.lock, state(folder)) == ((), first.lock, before)
    assert build(folder, Changes(flavour="rtx", batch=((1, 1, 8),))).reasons == ()  # as it is
    assert build(folder, RTX, force=True).reasons == ("asked for",)
    other = build(folder, Changes(flavour="rtx", precision="fp16", compute_capabilities=("sm89",), batch=((1, 2, 4),)))
    assert other.reasons == ("something else is asked for than was built",)
    assert (other.lock.precision, other.lock.compute_capabilities) == ("fp16", ("8.9",))
    assert other.lock.profiles[0]["image"].max[0] == 4
    assert [a.precision for a in open_model(folder).artifacts if a.kind == "engine"] == ["fp16"]
    kept = build(folder, Changes(flavour="rtx", workspace=1 << 30))  # what nobody speaks of stays as it is
    assert (kept.lock.precision, kept.lock.compute_capabilities, kept.lock.workspace) == ("fp16", ("8.9",), 1 << 30)
    assert kept.lock.profiles == other.lock.profiles
    assert build(folder, Changes(flavour="rtx")).reasons == ()


@real
@pytest.mark.parametrize("harm", ["changed", "missing", "old lock", "other version", "other graph"])
def test_an_engine_that_does_not_fit_is_built_anew(folder, harm):
    build(folder, RTX)
    engine, words = folder / "model.engine", "the engine's bytes are not those that were built"
    content = json.loads((folder / "bundle.json").read_text())
    if harm == "changed":
        engine.write_bytes(engine.read_bytes() + b"x")
    elif harm == "missing":
        engine.unlink()
        words = "there is no engine yet"
    elif harm == "old lock":
        content["artifacts"][-1]["about"] = {"schema_version": 1}
        words = "not the lock of an engine of this segdeploy"
    elif harm == "other version":
        content["artifacts"][-1]["about"]["version"] = "1.0.0.1"
        words = "built with tensorrt_rtx 1.0.0.1, here is "
    else:
        write_graph(folder / "model.onnx", sign=2)
        content["artifacts"][0]["sha256"] = sha256(folder / "model.onnx")
        words = "model.onnx has changed since"
    (folder / "bundle.json").write_text(json.dumps(content))
    made = build(folder, RTX)
    assert words in made.reasons[0]
    assert len(made.reasons) == 1
    assert open_model(folder).find("engine").sha256 == made.lock.engine_sha256
    assert build(folder, RTX).reasons == ()


@pytest.mark.parametrize("harm", [None, b"{", b"other"])
def test_a_lock_that_is_lost_or_damaged_is_mended(folder, tensorrt, harm):
    made = build(folder, Changes(precision="fp32"))
    file = folder / "engine.lock.json"
    before = file.read_bytes()
    if harm is None:
        file.unlink()
    else:
        file.write_bytes(before.replace(b"verified", b"mended") if harm == b"other" else harm)
    again = build(folder, Changes(precision="fp32"))
    assert (again.reasons, again.lock, file.read_bytes()) == ((), made.lock, before)
    stamp = file.stat().st_mtime_ns
    build(folder, Changes(precision="fp32"))
    assert file.stat().st_mtime_ns == stamp


@real
def test_a_build_that_fails_changes_nothing(folder):
    build(folder, RTX)
    write_graph(folder / "model.onnx", refused=True)
    content = json.loads((folder / "bundle.json").read_text())
    content["artifacts"][0]["sha256"] = sha256(folder / "model.onnx")
    (folder / "bundle.json").write_text(json.dumps(content))
    before = state(folder)
    with pytest.raises(ExportError, match="node_resize_7"):
        build(folder, RTX)
    assert state(folder) == before
    with pytest.raises(
        ModelError, match=r"expected an ONNX graph of precision int8 for TensorRT, found fp32, fp16; take"
    ):
        build(folder, Changes(flavour="rtx", precision="int8"))
    assert state(folder) == before


@real
def test_a_crash_between_two_files_leaves_a_bundle_that_opens(folder, monkeypatch):
    """Wherever it stops, the bundle opens and a further build mends it."""
    from segdeploy.export import build as module
    from segdeploy.export import engine

    class CrashError(BaseException):
        pass

    def crash(*_, **__):
        raise CrashError

    for where, name in ((engine, "write_bytes"), (engine, "write_lock"), (module, "_list_engine")):
        build(folder, RTX)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, crash)
            with pytest.raises(CrashError):
                build(folder, Changes(flavour="rtx", precision="fp32", batch=((2, 2, 2),)))
        assert open_model(folder).find("onnx") is not None
        assert build(folder, RTX).reasons == ("there is no engine yet",)


def test_options_come_back_from_the_lock(folder, tensorrt):
    options = EngineOptions(
        profiles=(Profile(batch=(1, 2, 3), height=(16,) * 3, width=(24,) * 3),),
        workspace=1 << 28,
        optimization_level=2,
        version_compatible=True,
        hardware_compatible="same_compute_capability",
    )
    add_engine(open_model(folder), options=options)
    assert options_of(read_lock(folder / "engine.lock.json")) == options


def test_target_without_torch_and_onnx(folder, tmp_path):
    """A whole build in a process of its own imports neither."""
    code = (
        "import sys; from pathlib import Path; from segdeploy.export.build import Changes, build\n"
        "print(build(Path(sys.argv[1]), Changes(flavour='rtx', precision='fp32')).lock.status)\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'timm'} & set(sys.modules)))"
    )
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT for RTX is not installed")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["built, not run on hardware", "[]"]


# With a GPU, which is a double that runs what it is given


def test_labels_are_compared_where_a_gpu_can(folder, tensorrt):
    made = build(folder, Changes(precision="fp32"))
    assert made.lock.flavour == "tensorrt"
    assert made.lock.status.startswith("verified on TensorRT ")
    assert made.lock.status.endswith("Double RTX: 100.0000% of the pixels agree with onnxruntime in FP32")
    (record,) = made.lock.verification
    assert (record["agreement"], record["passed"], record["pictures"]) == (1.0, True, "made up")
    assert read_lock(folder / "engine.lock.json") == made.lock
    assert open_model(folder).find("engine").about["verification"] == [record]
    again = build(folder, Changes(precision="fp32"))
    assert (again.reasons, again.lock) == ((), made.lock)


def test_labels_are_compared_on_a_table(folder, tensorrt, tmp_path):
    table = generate(tmp_path / "data", count=4, size=(32, 48))
    content = json.loads((folder / "bundle.json").read_text())
    content["spec"]["classes"] = content["spec"]["classes"] | {
        "names": list("abcdefg"),
        "colors": [[i] * 3 for i in range(7)],
    }
    (folder / "bundle.json").write_text(json.dumps(content))
    made = build(folder, Changes(precision="fp32"), verify_table=table)
    assert [(r["batch_size"], r["images"], r["agreement"]) for r in made.lock.verification] == [
        (1, 4, 1.0),
        (3, 4, 1.0),
    ]
    assert "100.0000%" in made.lock.status


def test_an_engine_that_says_other_classes_fails_the_gate(folder, tensorrt):
    with pytest.raises(
        GateError, match=r"model\.engine: not as accurate as onnxruntime: .*made-up pictures agree, fewer"
    ):
        build(folder, Changes(precision="fp16"))
    lock = read_lock(folder / "engine.lock.json")
    assert lock.status.startswith("FAILED: ")
    assert not lock.verification[0]["passed"]
    assert open_model(folder).find("engine", "fp16").about["status"] == lock.status


def test_another_gpu_builds_its_own(folder, tensorrt):
    build(folder, Changes(precision="fp32"))
    tensorrt.device.name = "Another"
    made = build(folder, Changes(precision="fp32"))
    assert made.reasons == ("built on Double RTX, here is Another (compute capability 8.6)",)
    assert made.lock.gpu == "Another"


def test_code_for_the_cpu_from_elsewhere_is_not_run(folder, tensorrt, monkeypatch):
    """A version-compatible engine that fits is not opened to be compared; one that was built here is."""
    made = build(folder, Changes(precision="fp32", version_compatible=True))
    assert made.lock.status.startswith("verified")
    monkeypatch.setattr("segdeploy.runtime.trt_runner.open_tensorrt", None)
    assert build(folder, Changes(precision="fp32")).reasons == ()


@real
def test_rtx_engine_of_the_build_server_gives_way_to_tensorrt_on_the_target(folder, tensorrt):
    driver, tensorrt.device.driver = tensorrt.device.driver, 0
    assert (
        build(folder, Changes(precision="fp32", compute_capabilities=("sm86",), batch=((1, 2, 4),))).lock.flavour
        == "tensorrt_rtx"
    )
    tensorrt.device.driver = driver
    made = build(folder, Changes(precision="fp32"))
    assert made.reasons == (f"built with tensorrt_rtx, here is TensorRT {tensorrt.full_version}",)
    assert (made.lock.flavour, made.lock.compute_capabilities) == ("tensorrt", ("8.6",))
    assert made.lock.profiles[0]["image"].max[0] == 4


@real
def test_engine_for_other_gpus_is_not_run_on_this_one(folder, cuda_device):
    """A build server with a GPU that TensorRT for RTX does not know builds, and does not try to run."""
    cuda_device.capability = (9, 0)
    made = build(folder, RTX)
    assert made.lock.status == "built, not run on hardware"
    assert build(folder, RTX).reasons == ()


def test_rtx_engine_for_other_gpus_gets_this_one_too(folder, cuda_device, monkeypatch):
    """What the runner sends here is built anew for the GPU that is here; targets that are named stay as they are."""
    library = TensorRT(DOUBLE_RTX, cuda_device)
    monkeypatch.setitem(sys.modules, library.name, library.module)
    build(folder, replace(RTX, compute_capabilities=("sm86",)))
    assert build(folder, RTX).reasons == ()
    cuda_device.capability = (12, 0)
    with pytest.raises(ModelError, match=r"for compute capability 8\.6, here is .*run segdeploy build"):
        open_runner(open_model(folder), "tensorrt")
    assert build(folder, replace(RTX, compute_capabilities=("sm86",))).reasons == ()
    made = build(folder, RTX)
    assert made.reasons == ("built for compute capability 8.6, here is Double RTX (compute capability 12.0)",)
    assert made.lock.compute_capabilities == ("8.6", "12.0")
    assert made.lock.status.startswith("verified on ")
    open_runner(open_model(folder), "tensorrt")
    assert build(folder, RTX).reasons == ()


@pytest.mark.parametrize(
    ("capability", "targets"),
    [
        ((7, 5), ("8.0", "8.6", "8.9", "12.0", "7.5")),
        ((12, 1), ("8.0", "8.6", "8.9", "12.0+")),
        ((9, 0), ("8.0", "8.6", "8.9", "12.0+")),
    ],
)
def test_the_usual_targets_and_this_gpu(folder, cuda_device, monkeypatch, capability, targets):
    library = TensorRT(DOUBLE_RTX, cuda_device)
    monkeypatch.setitem(sys.modules, library.name, library.module)
    cuda_device.capability = capability
    assert build(folder, RTX).lock.compute_capabilities == targets
    assert build(folder, RTX).reasons == ()


def test_without_onnxruntime_the_engine_is_built_and_not_compared(folder, tensorrt, monkeypatch):
    monkeypatch.setattr(
        "segdeploy.export.build.open_runner", lambda *_: open_runner(open_model(folder), "not-installed")
    )
    made = build(folder, Changes(precision="fp32"))
    assert made.lock.status.startswith("built, not compared: ")
    assert made.lock.verification == ()


def test_a_gpu_that_goes_away_while_labels_are_compared_costs_no_engine(folder, tensorrt, monkeypatch):
    class Gone:
        def __enter__(self):
            raise MissingPartError("the GPU went away")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("segdeploy.export.build.open_runner", lambda *_: Gone())
    made = build(folder, Changes(precision="fp32"))
    assert made.lock.status == "built, not compared: the GPU went away"
    assert open_model(folder).find("engine").about["status"] == made.lock.status


@real
def test_sides_that_the_encoder_cannot_take_are_refused(folder):
    write_graph(folder / "model.onnx", height="height", width="width")
    graph = artifact(folder, "model.onnx", "onnx", "fp32", {"size_multiple": 8})
    bundle.write_bundle(folder, BundleFile(spec=SPEC, artifacts=(graph,)))
    before = state(folder)
    words = r"model\.onnx: --height 12,16,32: its encoder takes multiples of 8; such as 16,16,32"
    with pytest.raises(ExportError, match=words):
        build(folder, Changes(flavour="rtx", height=(12, 16, 32)))
    assert state(folder) == before
    assert build(folder, Changes(flavour="rtx", height=(8, 16, 32))).reasons


@real
def test_the_fewest_bits_that_did_not_fail_become_the_engine(folder):
    held = open_model(folder)
    assert lightest(held) == "fp16"
    record = {"precision": "fp16", "target": "", "passed": False, "reasons": ["mean IoU drops"]}
    bundle.write_bundle(folder, held.file.model_copy(update={"verification": (record,)}))
    assert build(folder, Changes(flavour="rtx")).lock.precision == "fp32"
    bundle.write_bundle(folder, held.file.model_copy(update={"verification": (record | {"passed": True},)}))
    assert build(folder, Changes(flavour="rtx")).lock.precision == "fp16"
