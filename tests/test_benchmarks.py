"""The scripts under benchmarks/ still fit the library: they load, answer --help, and what they import is there."""

import ast
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("plugins/*/benchmarks/*.py")])
SCRIPTS = [path for path in FILES if path.parent.name == "benchmarks"]
RIVALS = {"cv2", "torchmetrics", "segmentation_models_pytorch", "openvino", "segdeploy_openvino"}
"""What a script compares with, and a test environment may lack."""


def load(path, monkeypatch):
    """The script as a module, its neighbours within reach as when Python is called with it."""
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in RIVALS:
            raise
        pytest.skip(f"{e.name} is not installed")
    return module


def is_command(path):
    """Whether it is to be called; the others are what scripts share."""
    return "__main__" in path.read_text("utf-8")


def name_of(path):
    return str(path.relative_to(ROOT))


def test_there_are_scripts():
    assert len(SCRIPTS) > 10


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_loads_and_answers_help(path, monkeypatch, capsys):
    module = load(path, monkeypatch)
    if not is_command(path):
        return
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {path.name}")
    assert " ".join(module.__doc__.split())[:60] in " ".join(shown.split())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_name_taken_from_segdeploy_exists(path):
    """Those too that are imported inside functions, which loading does not reach."""
    taken = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    for node in taken:
        if node.level == 0 and node.module.split(".")[0] == "segdeploy":
            module = importlib.import_module(node.module)
            for alias in node.names:
                found = hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
                assert found, f"{node.module} has no {alias.name}"


def test_the_readme_has_a_line_for_each():
    readme = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    scripts = [path.name for path in ROOT.glob("benchmarks/*.py") if is_command(path)]
    assert [name for name in scripts if f"`{name}`" not in readme] == []


BLOCKS = """
import subprocess, sys, time
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    if number == int(sys.argv[1]):
        raise SystemExit(3)
    subprocess.run([sys.executable, "-c", "import time\\nend = time.time() + 0.3\\nwhile time.time() < end: pass"])
    print("SECONDS", number, flush=True)
"""


def sides(processes, ends):
    return {name: processes.Side([sys.executable, "-c", BLOCKS, str(ends)], dict(os.environ), 1) for name in "ab"}


def test_sides_take_turns(monkeypatch):
    """The first round warms up; what a side's children take is not other work; disturbed rounds do not count."""
    processes = load(ROOT / "benchmarks" / "processes.py", monkeypatch)
    reasons = iter([None, None, None, None, "a reason", None])
    seen = []

    def told(before, after, threads):
        seen.append(after.own - before.own)
        return next(reasons, None)

    monkeypatch.setattr(processes, "disturbance", told)
    running = sides(processes, 99)
    found = processes.take_turns(running, 2)
    assert found.seconds == {"a": [1.0, 3.0], "b": [1.0, 3.0]}
    assert found.disturbed == ["b: a reason"]
    assert running["a"].said == ["ready\n"]
    assert sum(seen) > 0.2 * len(seen)
    assert all(side.process.returncode is not None for side in running.values())


def test_a_side_that_ends_ends_all(monkeypatch):
    processes = load(ROOT / "benchmarks" / "processes.py", monkeypatch)
    running = sides(processes, 1)
    with pytest.raises(SystemExit, match="ended with 3"):
        processes.take_turns(running, 2)
    assert all(side.process.returncode is not None for side in running.values())
