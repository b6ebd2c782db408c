"""Ludwig's published configurations, as printed: train a few steps, evaluate, export, verify.

Only `use_pretrained` is set false (nothing can be downloaded), and sizes and lengths are lowered by --set.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segdeploy.bundle import open_model
from segdeploy.config import config_from_dict, load_config
from segdeploy.data.table import Tables, read_table
from segdeploy.evaluate import evaluate
from segdeploy.export.run import export_run
from segdeploy.model.segmenter import build
from segdeploy.runtime.runner import RunnerOptions, open_runner
from segdeploy.train.loop import train

GOLDEN = Path(__file__).parent / "config" / "golden"
SMALL = [f"input_features.0.preprocessing.{side}=64" for side in ("height", "width")]
NOT_PRETRAINED = ["encoder.use_pretrained=false"]
SHORT = ["trainer.epochs=1"]


def write_samples(folder, image, mask, to_mask):
    """Twelve pictures of 64 x 96 with a bright box, and their masks: `to_mask` makes a picture of ids 0..2."""
    random = np.random.default_rng(0)
    rows = [f"{image},{mask}"]
    for i in range(12):
        labels = np.zeros((64, 96), np.uint8)
        top, left = random.integers(4, 24, 2)
        labels[top : top + 32, left : left + 48] = 1
        labels[top + 8 : top + 24, left + 8 : left + 40] = 2
        picture = (labels[..., None] * 90 + random.integers(0, 60, (64, 96, 3))).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"image_{i}.png")
        to_mask(labels).save(folder / f"mask_{i}.png")
        rows.append(f"image_{i}.png,mask_{i}.png")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def trimaps(tmp_path_factory):
    """Oxford-IIIT Pet's form: one channel with the values 1, 2, 3."""
    folder = tmp_path_factory.mktemp("pets")
    return write_samples(folder, "image", "mask", lambda labels: Image.fromarray(labels + 1))


@pytest.fixture(scope="module")
def colored(tmp_path_factory):
    """CamSeq's form: RGB masks, and a table with other column names."""
    colors = np.array([[128, 128, 128], [64, 0, 128], [0, 128, 192]], np.uint8)
    folder = tmp_path_factory.mktemp("camseq")
    return write_samples(folder, "image_path", "mask_path", lambda labels: Image.fromarray(colors[labels]))


def from_page(name, *overrides):
    """A snippet of the page as a reader takes it: its sections in the place of the first block's."""
    whole = yaml.safe_load((GOLDEN / "page_unet.yaml").read_text())
    return config_from_dict({**whole, **yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())}, name, overrides)


def path_to_bundle(config, table, folder):
    """Train, evaluate, export and verify; the parts of each that the tests look at."""
    run = train(config, Tables(dataset=table), folder / "runs", device="cpu").run
    opened = open_model(run)
    samples = read_table(table, opened.spec.image_column, opened.spec.mask_column)
    with open_runner(opened, "torch", RunnerOptions(threads=1, device="cpu")) as runner:
        stats = evaluate(runner, samples, opened.spec).to_dict(opened.spec)
    mask = stats[config.mask.name]
    assert 0 <= mask["mean_iou"] <= 1
    assert len(mask["confusion_matrix"]) == len(opened.spec.classes)
    exported = export_run(run, folder / "bundle", verify_table=table)
    agreement = [record.agreement for record in exported.parity]
    assert len(agreement) >= 2
    assert agreement == pytest.approx([1] * len(agreement), abs=1e-3)
    return opened.spec


def logits_vary_over_the_picture(spec):
    """Ludwig's segformer gives every pixel of a picture the same scores."""
    torch.manual_seed(0)
    model = build(spec).eval()
    with torch.inference_mode():
        logits = model(torch.randn(1, 3, spec.preprocessing.height, spec.preprocessing.width))
    return bool((logits.std((2, 3)) > 1e-4).all())


def check(config, table, folder, classes):
    spec = path_to_bundle(config, table, folder)
    assert len(spec.classes) == classes
    assert logits_vary_over_the_picture(spec)
    return spec


def test_page_unet(trimaps, tmp_path):
    config = load_config(GOLDEN / "page_unet.yaml", [*NOT_PRETRAINED, *SHORT, *SMALL])
    spec = check(config, trimaps, tmp_path, 3)
    assert spec.classes.values == ((1,), (2,), (3,))
    assert (spec.encoder.name, spec.decoder.name) == ("convnextv2", "unet")


@pytest.mark.parametrize("encoder", ["vit", "swin"])
def test_page_segformer(trimaps, tmp_path, encoder):
    words = [f"encoder.type={encoder}", *NOT_PRETRAINED, *SHORT]
    spec = check(from_page("page_segformer", *words, *SMALL), trimaps, tmp_path, 3)
    assert spec.decoder.config["hidden_size"] == 256


def test_page_segformer_alone_takes_its_size_from_the_images(trimaps, tmp_path):
    config = load_config(GOLDEN / "page_segformer.yaml", ["encoder.type=swin", *NOT_PRETRAINED, *SHORT])
    spec = check(config, trimaps, tmp_path, 3)
    assert (spec.preprocessing.height, spec.preprocessing.width) == (64, 96)


def test_page_fpn(trimaps, tmp_path):
    spec = check(from_page("page_fpn", *NOT_PRETRAINED, *SHORT, *SMALL), trimaps, tmp_path, 3)
    assert spec.decoder.config["num_channels"] == 128
    assert spec.decoder.config["upsample_mode"] == "bilinear"


def test_camseq(colored, tmp_path):
    spec = check(load_config(GOLDEN / "config_camseq.yaml", SHORT), colored, tmp_path, 32)
    # The colours of the masks, in Ludwig's order; the network has the 32 classes that were asked for.
    assert spec.classes.colors[:3] == ((0, 128, 192), (64, 0, 128), (128, 128, 128))
    assert (spec.preprocessing.height, spec.preprocessing.width) == (64, 96)


def test_unet_depth(colored, tmp_path):
    check(load_config(GOLDEN / "config_unet_depth.yaml", [*SHORT, *SMALL]), colored, tmp_path, 32)


@pytest.mark.parametrize("stages", [2, 3, 5])
def test_unet_of_other_depths(colored, tmp_path, stages):
    words = [f"decoder.num_stages={stages}", "encoder.base_channels=8", *SHORT, *SMALL]
    spec = check(load_config(GOLDEN / "config_unet_depth.yaml", words), colored, tmp_path, 32)
    assert spec.encoder.config["num_stages"] == spec.decoder.config["num_stages"] == stages


def test_segformer_on_dinov2(colored, tmp_path):
    config = load_config(GOLDEN / "config_segformer.yaml", [*NOT_PRETRAINED, *SHORT, *SMALL])
    assert check(config, colored, tmp_path, 32).encoder.name == "dinov2"


def test_fpn_on_efficientnet(colored, tmp_path):
    config = load_config(GOLDEN / "config_fpn.yaml", [*NOT_PRETRAINED, *SHORT, *SMALL])
    assert check(config, colored, tmp_path, 32).encoder.name == "efficientnet"
