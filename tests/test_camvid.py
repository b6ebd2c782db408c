"""Real road images, where they are at hand: in `SEGDEPLOY_CAMVID`, or in `shared/camvid` beside the checkout."""

import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
CAMVID = Path(os.environ.get("SEGDEPLOY_CAMVID", ROOT.parent / "shared" / "camvid"))

pytestmark = pytest.mark.skipif(
    not (CAMVID / "train.csv").is_file(), reason="no CamVid images here; set SEGDEPLOY_CAMVID to their folder"
)


@pytest.fixture(scope="module")
def config():
    from segdeploy.config import load_config

    return load_config(
        ROOT / "benchmarks" / "camvid" / "fpn_mobilenetv3.yaml",
        ["trainer.epochs=1", "input_features.0.preprocessing.height=180", "input_features.0.preprocessing.width=240",
         "augmentation.2.height=144", "augmentation.2.width=192"],
    )  # fmt: skip


def test_every_image_and_mask_passes_the_scan(config):
    from segdeploy.data.scan import scan
    from segdeploy.data.table import read_table

    classes = config.mask.preprocessing.class_map().model_copy(update={"encoding": "class_id"})
    for name, count in (("train", 367), ("val", 101), ("test", 233)):
        report = scan(read_table(CAMVID / f"{name}.csv"), classes)
        assert sum(report.sizes.values()) == count
        assert report.sizes == {(360, 480): count}
        assert (report.pixels > 0).all()
        assert report.ignored > 0


def test_no_image_is_in_two_parts():
    from segdeploy.data.table import fingerprint, read_table

    seen = {}
    for name in ("train", "val", "test"):
        for sample in read_table(CAMVID / f"{name}.csv"):
            other = seen.setdefault(fingerprint([sample]), name)
            assert other == name


def test_train_export_and_agree(config, tmp_path):
    from segdeploy.bundle import open_model
    from segdeploy.data.table import Tables, read_table
    from segdeploy.evaluate import evaluate
    from segdeploy.export.run import export_run
    from segdeploy.runtime.runner import open_runner
    from segdeploy.train.loop import train

    lines = (CAMVID / "train.csv").read_text().splitlines()
    table = tmp_path / "train.csv"
    table.write_text(
        "\n".join([lines[0], *[",".join(str(CAMVID / c) for c in line.split(",")) for line in lines[1:97]]])
    )
    val = tmp_path / "val.csv"
    lines = (CAMVID / "val.csv").read_text().splitlines()
    val.write_text("\n".join([lines[0], *[",".join(str(CAMVID / c) for c in line.split(",")) for line in lines[1:21]]]))
    result = train(config, Tables(training=table, validation=val), tmp_path / "runs", device="cpu")
    made = export_run(result.run, tmp_path / "bundle", verify_table=val)
    assert all(p.passed and p.agreement >= 0.999 and abs(p.miou_drop) <= 0.0005 for p in made.parity)
    bundle = open_model(tmp_path / "bundle")
    with open_runner(bundle) as runner:
        scores = evaluate(runner, read_table(val), bundle.spec).scores
    assert scores.mean_iou == pytest.approx(result.best_mean_iou, abs=0.0005)
    assert np.isfinite(scores.pixel_accuracy)
