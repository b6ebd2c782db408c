import json

import pytest

from segdeploy.errors import ModelError
from segdeploy.runtime.engine_lock import EngineLock, Here, ShapeRange, check, parse_lock, read_lock
from segdeploy.runtime.gpu import Gpu

SHAPES = ShapeRange(min=(1, 4, 6, 3), opt=(1, 4, 6, 3), max=(8, 4, 6, 3))
A10, L4, RTX3090 = Gpu("NVIDIA A10", "8.6"), Gpu("NVIDIA L4", "8.9"), Gpu("NVIDIA GeForce RTX 3090", "8.6")
H100, T4, RTX5090, GB10 = Gpu("H100", "9.0"), Gpu("T4", "7.5"), Gpu("RTX 5090", "12.0"), Gpu("GB10", "12.1")
RTX_DEFAULT = ("8.0", "8.6", "8.9", "12.0+")


def lock(**other):
    held = {
        "flavour": "tensorrt",
        "version": "10.16.1.11",
        "precision": "fp16",
        "gpu": "NVIDIA A10",
        "compute_capabilities": ("8.6",),
        "os": "Linux",
        "machine": "x86_64",
        "profiles": ({"image": SHAPES},),
        "optimization_level": 3,
        "onnx_file": "model.onnx",
        "onnx_sha256": "aa",
        "engine_sha256": "bb",
    }
    return EngineLock(**held | other)


def here(version="10.16.1.11", gpu=A10, os="Linux", machine="x86_64", **files):
    return Here(version, gpu, os, machine, **files)


def rtx(**other):
    return lock(**{"flavour": "tensorrt_rtx", "gpu": "", "compute_capabilities": RTX_DEFAULT} | other)


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (lock(), here()),
        (lock(), here(gpu=None)),
        (lock(), here(engine_sha256="bb", onnx_sha256="aa")),
        (lock(version_compatible=True), here("11.4.0.106")),
        (lock(version_compatible=True), here("10.16.1.12")),
        (lock(hardware_compatible="ampere_plus", compute_capabilities=("8.0+",)), here(gpu=H100)),
        (lock(hardware_compatible="same_compute_capability"), here(gpu=RTX3090)),
        (rtx(), here(gpu=A10)),
        (rtx(), here(gpu=L4, os="Windows")),
        (rtx(), here(gpu=GB10)),
        (rtx(compute_capabilities=("7.5", "12.0")), here(gpu=T4)),
    ],
)
def test_it_fits(held, found):
    assert check(held, found) == []
    assert held.refusal(found.version, found.gpu) == "" or found.os != "Linux"


@pytest.mark.parametrize(
    ("held", "found", "words"),
    [
        (lock(), here("11.4.0.106"), "built with tensorrt 10.16.1.11, here is 11.4.0.106"),
        (lock(version_compatible=True), here("10.9.0.34"), "built with tensorrt 10.16.1.11, here is 10.9.0.34"),
        (
            lock(),
            here(gpu=L4),
            "built on NVIDIA A10, for compute capability 8.6, here is NVIDIA L4 (compute capability 8.9)",
        ),
        (lock(), here(gpu=RTX3090), "built on NVIDIA A10, here is NVIDIA GeForce RTX 3090 (compute capability 8.6)"),
        (
            lock(hardware_compatible="ampere_plus", compute_capabilities=("8.0+",)),
            here(gpu=T4),
            "built on NVIDIA A10, for compute capability 8.0+, here is T4 (compute capability 7.5)",
        ),
        (lock(), here(os="Windows"), "built on Linux, here is Windows"),
        (rtx(), here(machine="aarch64"), "built on x86_64, here is aarch64"),
        (lock(), here(engine_sha256="cc"), "the engine's bytes are not those that were built"),
        (lock(), here(onnx_sha256="cc"), "model.onnx has changed since"),
        (
            rtx(),
            here(gpu=H100),
            "built for compute capability 8.0, 8.6, 8.9, 12.0+, here is H100 (compute capability 9.0)",
        ),
        (rtx(), here(gpu=T4), "built for compute capability 8.0, 8.6, 8.9, 12.0+, here is T4 (compute capability 7.5)"),
        (
            rtx(compute_capabilities=("12.0",)),
            here(gpu=GB10),
            "built for compute capability 12.0, here is GB10 (compute capability 12.1)",
        ),
    ],
)
def test_why_it_does_not_fit(held, found, words):
    assert check(held, found) == [words]


def test_all_reasons_at_once():
    found = here("11.4.0.106", H100, "Windows", "aarch64", engine_sha256="cc", onnx_sha256="dd")
    assert len(check(lock(), found)) == 6
    assert lock().refusal("11.4.0.106", H100).count("; ") >= 1


def test_it_comes_back_from_its_file(tmp_path):
    held = lock(workspace=1 << 30, verification=({"agreement": 1.0, "reasons": []},))
    path = tmp_path / "engine.lock.json"
    path.write_text(held.model_dump_json())
    assert read_lock(path) == held


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flavour": "tensorflow"}, "flavour: Input should be 'tensorrt' or 'tensorrt_rtx'"),
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"compute_capabilities": None}, "compute_capabilities"),
    ],
)
def test_others_are_refused(change, words):
    text = json.dumps(lock().model_dump(mode="json") | change)
    with pytest.raises(ModelError, match=rf"^x\.json: not the lock of an engine .*{words}.*build again$"):
        parse_lock(text, "x.json")


def test_it_must_be_there(tmp_path):
    with pytest.raises(ModelError, match="is missing; an engine is not opened without it, build again"):
        read_lock(tmp_path / "engine.lock.json")
