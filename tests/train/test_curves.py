import numpy as np
from PIL import Image

from segdeploy.train.curves import write_curves


def row(epoch, loss, iou, checked=None):
    return {"epoch": epoch, "training_loss": loss, "validation_loss": checked, "validation_mean_iou": iou}


def test_picture_shows_both_curves(tmp_path):
    write_curves(tmp_path / "one.png", [row(1, 2.0, 0.1)])
    write_curves(tmp_path / "many.png", [row(i, 2.0 / i, 0.1 * i) for i in range(1, 9)])
    one, many = (np.asarray(Image.open(tmp_path / n).convert("RGB")).astype(int) for n in ("one.png", "many.png"))
    assert one.shape == many.shape
    for color in ((0xB3, 0x58, 0x06), (0x21, 0x66, 0xAC)):
        near = [(abs(p - np.array(color)).sum(-1) < 30).sum() for p in (one, many)]
        assert near[1] > near[0] + 300


def test_validation_loss_is_a_curve_of_its_own(tmp_path):
    write_curves(tmp_path / "without.png", [row(i, 1.0, 0.5) for i in range(1, 9)])
    write_curves(tmp_path / "with.png", [row(i, 1.0, 0.5, None if i == 4 else 0.3) for i in range(1, 9)])
    without, both = (
        np.asarray(Image.open(tmp_path / n).convert("RGB")).astype(int) for n in ("without.png", "with.png")
    )
    color = np.array((0xB3, 0x58, 0x06))
    drawn = [(abs(p - color).sum(-1) < 30).sum() for p in (without, both)]
    assert drawn[1] > drawn[0] + 300
