from types import SimpleNamespace

import pytest

from segdeploy.benchmark.plan import Group, plan_entries, plan_groups
from segdeploy.benchmark.settings import benchmark_settings
from segdeploy.bundle import Bundle, open_model
from segdeploy.config.schema import Benchmark
from segdeploy.environment import available_cores
from segdeploy.errors import ConfigError

CPU = {"gpus": [], "cpu_features": ["avx2"]}
AMX = {"gpus": [], "cpu_features": ["amx_bf16"]}
GPU = {"gpus": ["NVIDIA"], "cpu_features": []}


def names(bundle, wanted, machine, device="auto", compile_=True):
    notes = []
    return [e.name for e in plan_entries(bundle, wanted, machine, device, compile_, notes)], notes


def test_groups_begin_with_the_smallest_batch(tiny_bundle):
    bundle = open_model(tiny_bundle)
    assert plan_groups(bundle, Benchmark()) == [Group(b, available_cores(), 64, 96) for b in (1, 4)]
    found = plan_groups(bundle, Benchmark(batches=(4, 1, 4), threads=(2, 1), sizes=("32x16", "96x64")))
    assert found == [Group(b, t, h, w) for w, h in ((32, 16), (96, 64)) for t in (2, 1) for b in (1, 4)]
    assert str(found[0]) == "batch 1, 2 threads, 32x16"


def test_torchs_rows_depend_on_the_machine(tiny_bundle, monkeypatch):
    monkeypatch.setenv("CXX", "true")  # a compiler that is there
    bundle = open_model(tiny_bundle)
    plain = ["torch eager", "torch channels_last"]
    found, notes = names(bundle, ["torch"], CPU)
    assert found == [*plain, "torch compile"]
    assert any("no instructions for bfloat16" in n for n in notes)
    assert names(bundle, ["torch"], AMX) == ([*plain, "torch AMP", "torch compile", "torch compile AMP"], [])
    assert names(bundle, ["torch"], {**AMX, "cpu_features": ["avx512_bf16"]}, compile_=False)[0] == [
        *plain,
        "torch AMP",
    ]
    assert names(bundle, ["torch"], GPU)[0] == [*plain, "torch AMP", "torch compile", "torch compile AMP"]
    assert names(bundle, ["torch"], GPU, device="cpu")[0] == [*plain, "torch compile"]
    assert names(bundle, ["torch"], AMX, compile_=False)[0] == [*plain, "torch AMP"]
    monkeypatch.setenv("CXX", "no-compiler")
    found, notes = names(bundle, ["torch"], CPU)
    assert found == plain
    assert "torch compile was left out: no C++ compiler found" in notes


def test_a_run_folder_has_torch_rows_alone(tiny_run):
    found, notes = names(open_model(tiny_run), None, CPU, compile_=False)
    assert {n.split()[0] for n in found} == {"torch"}
    assert any("onnxruntime was left out" in n for n in notes)


def test_a_row_for_each_precision_that_a_backend_runs_and_the_bundle_holds(tiny_bundle):
    opened = open_model(tiny_bundle)
    graph = opened.find("onnx")
    others = [("fp16", ""), ("int8", "cpu"), ("int8", "tensorrt")]
    graphs = [graph.model_copy(update={"precision": p, "target": t}) for p, t in others]
    lighter = Bundle(opened.path, opened.spec, (*opened.artifacts, *graphs), opened.file)
    found, notes = names(lighter, ["onnxruntime", "torch"], CPU, compile_=False)
    assert found == ["torch eager", "torch channels_last", "onnxruntime", "onnxruntime int8"]
    assert "onnxruntime fp16 was left out: a CPU computes it in FP32, only slower" in notes
    found, _ = names(lighter, ["onnxruntime"], GPU)
    assert found == ["onnxruntime", "onnxruntime fp16", "onnxruntime int8"]


def test_settings_come_from_bundle_and_command_line(tiny_bundle):
    bundle = open_model(tiny_bundle)
    assert benchmark_settings(bundle, {"batches": None, "rounds": 7}) == Benchmark(rounds=7)
    words = {"batches": "2,8", "threads": "1, 2", "sizes": "480x352"}
    assert benchmark_settings(bundle, words) == Benchmark(batches=(2, 8), threads=(1, 2), sizes=("480x352",))
    for key, word in (("batches", "1,x"), ("batches", "0"), ("threads", ""), ("sizes", "480"), ("sizes", "0x1")):
        with pytest.raises(ConfigError, match=f"--{key} {word}: expected"):
            benchmark_settings(bundle, {key: word})


def test_one_thread_count_without_a_list_is_what_older_bundles_hold(tmp_path):
    def bundle(**kept):
        return SimpleNamespace(path=tmp_path, file=SimpleNamespace(benchmark=kept))

    assert benchmark_settings(bundle(threads=2, batches=[1, 8]), {}) == Benchmark(batches=(1, 8), threads=(2,))
    assert benchmark_settings(bundle(threads=None), {}).threads is None
    assert benchmark_settings(bundle(threads=[1, 2]), {}).threads == (1, 2)
    for wrong, words in (
        ({"threads": 0}, r"threads\[0\]: .* got 0"),
        ({"threads": True}, "threads: "),
        ({"x": 1}, "x: "),
    ):
        with pytest.raises(ConfigError, match=rf"^{tmp_path}: benchmark\.{words}") as caught:
            benchmark_settings(bundle(**wrong), {})
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^--rounds: .* got 0"):
        benchmark_settings(bundle(), {"rounds": 0})
