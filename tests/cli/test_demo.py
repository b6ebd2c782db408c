"""`segdeploy demo`, smaller: every command of README in its own process, then the questions a user would ask."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.xdist_group("demo")


# Compiling takes a minute and is not what these tests are about.
ENV = {**os.environ, "CXX": "no-compiler"}


def segdeploy(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "segdeploy", *map(str, words)], env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo-report"
    quick = ("batches=[1]", "rounds=3", "seconds=0", "warmup_seconds=0", "cold_starts=0")
    changes = [word for change in quick for word in ("--set", f"benchmark.{change}")]
    done = segdeploy("demo", "-o", folder, "--images", 20, "--epochs", 1, *changes)
    return folder, done.stdout


def test_prints_each_command_and_where_the_report_is(demo):
    folder, said = demo
    for command in ("train", "evaluate", "export", "predict", "benchmark"):
        assert f"$ segdeploy {command} " in said
    assert str(folder / "report" / "report.html") in said.splitlines()[-1]


def test_everything_is_there(demo):
    folder, _ = demo
    for name in ("report.json", "report.md", "report.html"):
        assert (folder / "report" / name).stat().st_size > 1000
    assert len(list((folder / "masks").glob("*.png"))) == 20
    assert len(list((folder / "masks").glob("*.overlay.jpg"))) == 20
    stats = json.loads((folder / "runs" / "demo" / "test_statistics.json").read_text())
    assert set(stats["mask"]["per_class_stats"]) >= {"background", "cable"}
    report = json.loads((folder / "report" / "report.json").read_text())
    assert {r["name"] for r in report["rows"]} >= {"torch eager", "torch channels_last", "onnxruntime"}
    assert report["command"].startswith("segdeploy benchmark ")


def test_demo_replaces_a_demo_and_nothing_else(demo, tmp_path):
    from segdeploy.demo import MARKER

    (tmp_path / "precious.txt").write_text("mine")
    for others in ([], ["demo.yaml"], [MARKER, "demo.yaml"]):
        for name in others:
            (tmp_path / name).write_text("")
        done = segdeploy("demo", "-o", tmp_path, code=2)
        assert "choose another -o" in done.stderr
        assert (tmp_path / "precious.txt").read_text() == "mine"
    assert "is a file" in segdeploy("demo", "-o", tmp_path / "precious.txt", code=2).stderr
    (demo[0] / "mine.txt").write_text("added later")
    assert "choose another -o" in segdeploy("demo", "-o", demo[0], code=2).stderr
    (demo[0] / "mine.txt").unlink()


def test_run_and_bundle_write_the_same_masks(demo, tmp_path):
    folder, _ = demo
    images = sorted((folder / "data" / "images").iterdir())[:3]
    segdeploy("predict", folder / "runs" / "demo", *images, "-o", tmp_path / "run")
    segdeploy("predict", folder / "bundle", *images, "-o", tmp_path / "bundle")
    for image in images:
        ours, theirs = (
            np.asarray(Image.open(tmp_path / d / image.with_suffix(".png").name)) for d in ("run", "bundle")
        )
        assert (ours == theirs).mean() >= 0.999


def test_predict_goes_past_broken_images_and_exits_with_two(demo, tmp_path):
    folder, _ = demo
    inputs = tmp_path / "in"
    inputs.mkdir()
    good = sorted((folder / "data" / "images").iterdir())[:2]
    for path in good:
        (inputs / path.name).write_bytes(path.read_bytes())
    (inputs / "0000_half.png").write_bytes(good[0].read_bytes()[:300])
    (inputs / "0000_text.png").write_text("not a picture")
    done = segdeploy("predict", folder / "bundle", inputs, "-o", tmp_path / "out", code=2)
    assert "2 mask(s)" in done.stdout
    assert "0000_half.png" in done.stderr
    assert "0000_text.png" in done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_evaluate_writes_where_it_is_told(demo, tmp_path):
    folder, _ = demo
    done = segdeploy("evaluate", folder / "bundle", "--dataset", folder / "data" / "test.csv", "-o", tmp_path)
    stats = json.loads((tmp_path / "test_statistics.json").read_text())
    assert f"{stats['mask']['mean_iou'] * 100:.2f}" in done.stdout
    assert stats["runner"]["backend"] == "onnxruntime"


def test_limits_that_are_not_kept_exit_with_three(demo, tmp_path):
    """A bundle whose graph differs: the run's weights are changed behind the export's back by a wrapper process."""
    folder, _ = demo
    code = (
        "import sys, torch\n"
        "from segdeploy.export import onnx_graph, run\n"
        "def spoiled(segmenter, spec, path, **options):\n"
        "    with torch.no_grad(): segmenter.head.bias[1] += 100\n"
        "    return onnx_graph.export_onnx(segmenter, spec, path, **options)\n"
        "run.export_onnx = spoiled\n"
        "from segdeploy.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    words = [
        "export",
        folder / "runs" / "demo",
        "-o",
        tmp_path / "bundle",
        "--verify",
        folder / "data" / "validation.csv",
    ]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "not as accurate as torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from segdeploy.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'numpy', 'PIL', 'pydantic', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "benchmark" in done.stdout


def test_killed_commands_leave_no_half_files(demo, tmp_path):
    folder, _ = demo
    words = ["export", folder / "runs" / "demo", "-o", tmp_path / "bundle"]
    process = subprocess.Popen([sys.executable, "-m", "segdeploy", *map(str, words)], env=dict(os.environ))
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "bundle").exists() or (tmp_path / "bundle" / "bundle.json").exists()
