"""Rounds, turns and workers."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdeploy.benchmark.group import Job, Measured, _check_provider, differs, measure, take_turns
from segdeploy.benchmark.plan import Entry, Group
from segdeploy.benchmark.process import RowError, WorkerProcess
from segdeploy.benchmark.timing import paired_ratio
from segdeploy.benchmark.worker import Worker
from segdeploy.bundle import open_model
from segdeploy.config.schema import Benchmark
from segdeploy.data.table import read_table
from segdeploy.environment import available_cores

GROUP = Group(1, 1, 64, 96)


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8))
    return tmp_path / "images.npy"


def run_group(bundle, images, folder, names, rounds):
    settings = Benchmark(rounds=rounds, seconds=0, warmup=1, warmup_seconds=0)
    job = Job(open_model(bundle), settings, "auto", [], folder)
    entries = [Entry(name, name) for name in names]
    return measure(job, GROUP, entries, images, whole=False, progress=lambda *_: None)


class Script:
    """A worker that answers from a list: what disturbed each of its turns, or an error."""

    def __init__(self, name, turns, heard):
        self.name, self.turns, self.heard = name, iter(turns), heard

    def ask(self, do, **_):
        self.heard.append(self.name)
        said = next(self.turns, None)
        if isinstance(said, RowError):
            raise said
        return {"milliseconds": [1.0], "engine": None, "disturbed": said}


def scripted(*turns):
    heard = []
    names = "abc"[: len(turns)]
    rows = [Measured(Entry(n, n), GROUP, worker=Script(n, t, heard)) for n, t in zip(names, turns, strict=True)]
    return rows, heard


def test_every_other_round_runs_backwards():
    rows, heard = scripted([], [], [])
    assert take_turns(rows, "memory", 3, 0, lambda *_: None) == (0, 0)
    assert "".join(heard) == "abccbaabc"
    assert [len(r.rounds) for r in rows] == [3, 3, 3]


def test_a_round_in_which_one_row_was_disturbed_is_repeated_for_all():
    rows, heard = scripted([None, None], [None, "a neighbour"])
    assert take_turns(rows, "memory", 2, 0, lambda *_: None) == (1, 0)
    assert "".join(heard) == "abbaba"  # the repeated one runs the same way again
    assert [len(r.rounds) for r in rows] == [2, 2]


def test_after_as_many_repetitions_as_rounds_disturbed_ones_count():
    rows, _ = scripted(["busy"] * 9, [None] * 9)
    assert take_turns(rows, "memory", 3, 0, lambda *_: None) == (3, 3)
    assert [len(r.rounds) for r in rows] == [3, 3]


def test_progress_says_why_nothing_moves_on():
    rows, _ = scripted([None, "busy", None, None])
    told = []
    take_turns(rows, "memory", 3, 0, lambda *step: told.append(step))
    assert [(done, total, bool(note)) for done, total, note in told] == [
        (0, 3, False), (1, 3, False), (1, 3, True), (2, 3, False)
    ]  # fmt: skip


def test_a_row_that_fails_drops_out_and_the_others_go_on():
    rows, heard = scripted([None, RowError("crashed")], [])
    assert take_turns(rows, "memory", 3, 0, lambda *_: None) == (0, 0)
    assert "".join(heard) == "abbab"
    assert (rows[0].reason, len(rows[1].rounds)) == ("crashed", 3)
    assert take_turns(rows[:1], "memory", 3, 0, lambda *_: None) == (0, 0)  # nobody is left, and that is the end


def test_rounds_go_on_for_the_time_asked_for():
    rows, _ = scripted([])
    began = time.monotonic()
    take_turns(rows, "memory", 2, 0.05, lambda *_: None)
    assert time.monotonic() - began >= 0.05
    assert len(rows[0].rounds) > 2


def test_two_runs_agree_within_their_intervals(planted, tiny_bundle, images, tmp_path):
    intervals = []
    for _ in range(2):
        short, long = run_group(tiny_bundle, images, tmp_path, ["short", "long"], 4)
        assert len(short.rounds) == len(long.rounds) == 4
        intervals.append(paired_ratio(long.rounds, short.rounds)[1:])
    (low, high), (other_low, other_high) = intervals
    # Sleeps of 60 and 30 ms, and a network beside, on cores that other tests have too: four rounds bound it loosely.
    assert low <= other_high * 1.5
    assert other_low <= high * 1.5
    assert 1 < low <= high < 5


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells what other work takes")
def test_a_busy_neighbour_is_noticed_and_patience_ends(tiny_bundle, images, tmp_path):
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(available_cores())]
    try:
        (row,) = run_group(tiny_bundle, images, tmp_path, ["onnxruntime"], 3)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    assert len(row.rounds) == 3
    assert row.repeated == 3
    assert row.disturbed >= 1


def test_a_row_that_dies_between_rounds_leaves_the_others(planted, tiny_bundle, images, tmp_path):
    dying, other = run_group(tiny_bundle, images, tmp_path, ["crash", "onnxruntime"], 3)
    assert "SIGSEGV" in dying.reason
    assert (other.reason, len(other.rounds)) == (None, 3)


def test_a_size_that_the_model_leaves_free(tiny_run, tiny_table, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 32, 48, 3), np.uint8))
    files = [str(s.image) for s in read_table(tiny_table)[:3]]
    worker = Worker()
    opened = worker.open(str(tiny_run), "torch", {"threads": 1, "device": "cpu"}, (32, 48))
    try:
        assert opened["runner"]["provider"] == "cpu"
        worker.first(str(tmp_path / "images.npy"), 2, files)
        turn = worker.turn("file", 3, 0, str(tmp_path / "masks"))
    finally:
        worker.runner.close()
    assert len(turn["milliseconds"]) == 3
    assert turn["engine"] is None
    written = sorted((tmp_path / "masks").iterdir())
    assert [p.stem for p in written] == sorted(Path(f).stem for f in files)
    assert {Image.open(p).size for p in written} == {(112, 80)}  # the pictures' own


CPU = {"provider": "CPUExecutionProvider"}


@pytest.mark.parametrize(
    ("device", "has_gpu", "backend", "runner", "said"),
    [
        ("auto", True, "onnxruntime", {**CPU, "fell_back": "no cuDNN"}, "fell back to CPUExecutionProvider: no cuDNN"),
        ("auto", True, "onnxruntime", CPU, "although there is a GPU"),
        ("auto", True, "torch", {"provider": "cpu"}, "although there is a GPU"),
        ("auto", True, "torch", {"provider": "NVIDIA H100"}, None),
        ("auto", True, "openvino", {"provider": "CPU"}, None),  # it has nothing else
        ("auto", False, "onnxruntime", CPU, None),
        ("cpu", True, "onnxruntime", CPU, None),
        ("cuda", True, "other", {"provider": None}, "does not tell what it runs on"),
        ("cuda", True, "other", CPU, "although device cuda was asked for"),
        ("auto", True, "other", {"provider": None}, None),
    ],
)
def test_a_row_that_was_meant_for_a_gpu_and_is_on_the_cpu_has_failed(
    tiny_bundle, tmp_path, device, has_gpu, backend, runner, said
):
    job = Job(open_model(tiny_bundle), Benchmark(), device, [], tmp_path, has_gpu)
    row = Measured(Entry(backend, backend), GROUP, on_gpu=job.on_gpu)
    _check_provider(row, runner, job)
    assert row.reason is None if said is None else said in row.reason


def test_another_process_of_a_row_runs_on_the_same():
    timed = {"provider": "CUDAExecutionProvider", "precision": "fp16", "threads": 1}
    assert differs(timed, {**timed, "threads": 2}) is None
    assert differs(timed, {**timed, **CPU}) == (
        "it ran on CPUExecutionProvider in fp16, and was timed on CUDAExecutionProvider in fp16"
    )
    assert "in fp32, and was timed" in differs(timed, {**timed, "precision": "fp32"})


def test_labels_of_the_timed_inputs_are_compared_with_torchs(planted, tiny_bundle, images, tmp_path):
    settings = Benchmark(rounds=1, seconds=0, warmup=1, warmup_seconds=0)
    job = Job(open_model(tiny_bundle), settings, "auto", [], tmp_path)
    entries = [Entry("torch eager", "torch"), Entry("onnxruntime", "onnxruntime"), Entry("mixed", "mixed")]
    two = Group(2, 1, 64, 96)
    rows = measure(job, two, entries, images, whole=False, progress=lambda *_: None)
    assert [r.reason for r in rows] == [None] * 3
    torch, same, mixed = (r.agreement for r in rows)
    assert torch == 1
    assert same > 0.999
    assert mixed < 0.01


def test_a_killed_worker_is_noticed_at_once_and_its_children_end(planted, tiny_bundle, images, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the working directory')")
    monkeypatch.chdir(tmp_path)
    with WorkerProcess(1, timeout=60) as worker:
        worker.ask("open", model=str(tiny_bundle), backend="orphan", options={"threads": 1})
        began = time.monotonic()
        with pytest.raises(RowError, match="was killed by SIGKILL"):
            worker.ask("first", images=str(images), batch=1, files=[])
        assert time.monotonic() - began < 10
        ends = time.monotonic() + 5
        while _living(worker._process.pid) and time.monotonic() < ends:
            time.sleep(0.01)
        assert _living(worker._process.pid) == []


def _living(group):
    """Processes of a group, as far as the system lists them; those that nobody has waited for do not live."""
    stats = [p.read_text().rpartition(")")[2].split() for p in Path("/proc").glob("[0-9]*/stat") if p.exists()]
    return [s for s in stats if s[0] != "Z" and int(s[2]) == group]


def test_memory_is_the_workers_own(tiny_bundle, images):
    """A parent that once held 600 MiB must not show in its child's peak."""
    held = np.ones(600 << 17)
    del held
    with WorkerProcess(1) as worker:
        worker.ask("open", model=str(tiny_bundle), backend="onnxruntime", options={"threads": 1})
        assert 20 < worker.ask("state")["peak_memory_mib"] < 400


def test_dead_worker_is_told_from_an_answer(tiny_bundle, images):
    with WorkerProcess(1) as worker:
        worker.ask("open", model=str(tiny_bundle), backend="onnxruntime", options={"threads": 1})
        worker.ask("first", images=str(images), batch=2, files=[])
        assert len(worker.ask("turn", what="memory", calls=3, seconds=0)["milliseconds"]) >= 3
        with pytest.raises(RowError, match="AttributeError"):
            worker.ask("nothing")
        assert worker.ask("state")["peak_memory_mib"] > 10
        worker._process.kill()
        with pytest.raises(RowError, match="was killed by SIGKILL"):
            worker.ask("state")


def test_silent_worker_times_out():
    with WorkerProcess(1, timeout=0.01) as worker, pytest.raises(RowError, match="no answer to 'state'"):
        worker.ask("state")


def test_threads_are_pinned_for_every_library(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with WorkerProcess(3, extra={"OTHER": "x"}) as worker:
        environment = Path(f"/proc/{worker._process.pid}/environ")
        if environment.exists():
            found = environment.read_bytes().split(b"\0")
            assert {b"OMP_NUM_THREADS=3", b"MKL_NUM_THREADS=3", b"OTHER=x"} <= set(found)
