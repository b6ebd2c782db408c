"""The README's configuration trains, exports and is verified; the engine's builder takes the graph."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
NAME = "segdeploy-deeplabv3plus"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures, the run that the README's YAML gives for them, and its verified bundle."""
    from segdeploy.config import parse_config
    from segdeploy.data.demo import generate
    from segdeploy.data.table import Tables
    from segdeploy.export.run import export_run
    from segdeploy.train.loop import train

    folder = tmp_path_factory.mktemp("deeplabv3plus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGDEPLOY_CACHE", str(folder / "cache"))
        table = generate(folder / "data", count=20, size=(80, 112))
        (yaml,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.M | re.S)
        run = train(parse_config(yaml), Tables(dataset=table), folder / "runs", device="cpu").run
        export_run(run, folder / "bundle", verify_table=table)
    return folder


def test_the_bundle_names_this_distribution_and_is_verified(place):
    about = json.loads((place / "bundle" / "bundle.json").read_text())
    assert about["spec"]["decoder"]["name"] == "deeplabv3plus"
    assert about["spec"]["decoder"]["distribution"] == NAME
    assert about["spec"]["encoder"]["config"]["output_stride"] == 16
    assert about["verification"]
    assert all(record["passed"] and record["images"] > 0 for record in about["verification"])


def test_onnxruntime_gives_torchs_labels(place):
    from segdeploy import bundle
    from segdeploy.runtime.runner import open_runner

    image = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    masks = []
    for backend in ("torch", "onnxruntime"):
        with open_runner(bundle.open_model(place / "bundle"), backend) as runner:
            masks.append(runner.run(image))
    assert (masks[0] == masks[1]).mean() >= 0.999


def test_tensorrt_for_rtx_parses_and_builds_it(place, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    from segdeploy import bundle
    from segdeploy.export.engine import build_engine

    spec = bundle.open_model(place / "bundle").spec
    lock = build_engine(place / "bundle" / "model.onnx", spec, tmp_path)
    assert lock.status == "built, not run on hardware"
