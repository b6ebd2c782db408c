"""The preview shows what training sees: the originals, the draws, the masks' colours, and what is ignored."""

import numpy as np
import pytest
import torch
from PIL import Image

from segdeploy.augment_preview import compose, write_preview
from segdeploy.classes import ClassMap
from segdeploy.cli import main
from segdeploy.config import parse_config
from segdeploy.data.images import read_image
from segdeploy.data.table import read_table
from segdeploy.errors import ConfigError

AUGMENTATION = """
    augmentation:
      - {type: random_scale, min: 0.5, max: 0.6}
      - {type: random_crop, height: 64, width: 80, rare_class_probability: 0.5}
      - {type: random_copy_paste, classes: [gear]}
      - {type: random_color}
    encoder:"""


@pytest.fixture
def config(tiny_config):
    return tiny_config.replace("\n    encoder:", AUGMENTATION)


def test_a_sheet_holds_originals_draws_masks_and_a_legend():
    classes = ClassMap(names=("road", "car"), colors=((200, 0, 0), (0, 0, 200)))
    image = np.full((40, 80, 3), 100, np.uint8)
    labels = np.zeros((40, 80), np.uint8)
    labels[:, 40:60], labels[:, 60:] = 1, 255
    small = np.full((30, 60, 3), 220, np.uint8), np.full((30, 60), 1, np.uint8)
    sheet = np.asarray(compose([[(image, labels)] * 2, [small] * 2], ["first.png", "second.png"], classes))
    cell = (160, 320)  # 80 x 40 and 60 x 30 at the sheet's width
    assert sheet.shape[1] == 2 * (320 + 8) + 8
    for row in range(2):
        top = 22 + row * (22 + 2 * (160 + 8)) + 22
        plain, masked = sheet[top : top + cell[0], 8 : 8 + 320], sheet[top + 168 : top + 168 + cell[0], 8 : 8 + 320]
        assert (plain == 100).all()
        assert (masked[:, :156] == (160, 40, 40)).all()  # 0.6 of the class's colour
        assert (masked[:, 164:236] == (40, 40, 160)).all()
        assert {tuple(p) for p in masked[:, 244:].reshape(-1, 3)} == {(150, 150, 150), (60, 60, 60)}
        assert (sheet[top : top + cell[0], 336 : 336 + 320] == 220).all()
        assert (sheet[top - 22 : top, 8:336] < 128).any()  # a caption
    legend = sheet[22 + 2 * (22 + 2 * 168) :]
    assert all((legend == color).all(-1).sum() >= 14 * 14 for color in classes.colors)


def test_preview_of_a_table(tiny_table, config, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(config)
    words = ["inspect", "--augment", "-c", tmp_path / "c.yaml", tiny_table, "--samples", "2", "--draws", "2", "-o"]

    def run(name, *more):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words), str(tmp_path / name), *more])
        assert caught.value.code == 0
        return (tmp_path / name).read_bytes()

    first = run("a.png")
    assert capsys.readouterr().out.startswith(str(tmp_path / "a.png"))
    assert run("b.png") == first
    assert run("c.png", "--seed", "1") != first
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape[1] == 3 * (320 + 8) + 8
    # The first sample is one of the training rows, as it is at the network's size.
    training = [s for s in read_table(tiny_table) if s.part == "training"]
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(42)).tolist()
    shown = sheet[44 : 44 + 213, 8 : 8 + 320]
    image = Image.fromarray(read_image(training[order[0]].image)).resize((96, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(shown, np.asarray(image.resize((320, 213), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (lambda text: text, "a.jpg", "expected a name that ends in .png"),
        (lambda text: text.replace(AUGMENTATION, "\n    encoder:"), "a.png", "has no `augmentation` to show"),
        (lambda text: text.replace("classes: [gear]", "max_frequency: 0.00001"), "a.png", "no class has at most 1e-05"),
    ],
)
def test_what_cannot_be_shown_is_one_line(tiny_table, config, tmp_path, change, name, said):
    with pytest.raises(ConfigError, match=said) as caught:
        write_preview(parse_config(change(config)), tiny_table, tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_table_and_without_data_is_one_line(config, tmp_path):
    with pytest.raises(ConfigError, match="expected a table, or `data` in the configuration"):
        write_preview(parse_config(config), None, tmp_path / "a.png")


def test_the_configuration_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["inspect", "--augment", str(tmp_path)])
    assert caught.value.code == 2
    assert "--augment: expected -c CONFIG" in capsys.readouterr().err
