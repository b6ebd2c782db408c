"""Each known data set as a small tree in its own form, from the folder to decoded masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdeploy.config import load_config
from segdeploy.data.layouts import LAYOUTS, camvid, cityscapes, find_layout, voc
from segdeploy.data.masks import read_mask
from segdeploy.data.split import configured_tables, read_parts
from segdeploy.data.table import Tables
from segdeploy.errors import DataError
from segdeploy.init.machine import Machine
from segdeploy.init.run import write_config

MACHINE = Machine(cores=2, memory=8 << 30)
SIZE = (8, 12)  # height, width


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def stripes(path, values, mode="L"):
    """A mask with one upright stripe for each value, all equally wide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = np.repeat(np.array(values, np.uint8), SIZE[1] // len(values))
    mask = Image.fromarray(np.tile(row, (SIZE[0], 1)))
    if mode == "P":
        mask.putpalette([c for i in range(256) for c in voc.voc_color(i)])
    mask.save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def pets_tree(root):
    for i in range(6):
        picture(root / "images" / f"cat_{i}.jpg", i)
        stripes(root / "annotations/trimaps" / f"cat_{i}.png", [1, 2, 3])
    (root / "annotations/trimaps/._cat_0.png").write_bytes(b"a Mac was here")
    text(root / "annotations/trainval.txt", "# image class species breed", *(f"cat_{i} 1 1 1" for i in range(4)))
    text(root / "annotations/test.txt", "cat_4 1 1 1")
    return root


def cityscapes_tree(root):
    for part, city in (("train", "aachen"), ("train", "zurich"), ("val", "munster"), ("test", "berlin")):
        stem = f"{city}_000001_000019"
        picture(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png")
        folder = root / "gtFine" / part / city
        stripes(folder / f"{stem}_gtFine_labelIds.png", [7, 8, 33, 4] if part != "test" else [0])
        stripes(folder / f"{stem}_gtFine_instanceIds.png", [7])
    return root


def voc_tree(root):
    for part, stems in (("train", ["2007_000032", "2007_000039"]), ("val", ["2007_000033"])):
        text(root / "ImageSets/Segmentation" / f"{part}.txt", *stems)
        for stem in stems:
            picture(root / "JPEGImages" / f"{stem}.jpg")
            stripes(root / "SegmentationClass" / f"{stem}.png", [0, 15, 20, 255], "P")
    picture(root / "JPEGImages/2007_000001.jpg")  # for detection alone
    return root


def ade20k_tree(root):
    for part, name in (("training", "train"), ("validation", "val")):
        for i in (1, 2):
            picture(root / "images" / part / f"ADE_{name}_{i:08}.jpg", i)
            stripes(root / "annotations" / part / f"ADE_{name}_{i:08}.png", [0, 1, 150])
    return root


def camvid_tree(root):
    for part, count in (("train", 2), ("val", 1), ("test", 1)):
        names = [f"0001TP_{part}{i}.png" for i in range(count)]
        for name in names:
            picture(root / part / name)
            stripes(root / f"{part}annot" / name, [0, 3, 10, 11])
        text(root / f"{part}.txt", *(f"/SegNet/CamVid/{part}/{n} /SegNet/CamVid/{part}annot/{n}" for n in names))
    return root


TREES = {
    "pets": pets_tree,
    "cityscapes": cityscapes_tree,
    "voc": voc_tree,
    "ade20k": ade20k_tree,
    "camvid": camvid_tree,
}
# By hand: the ids of each stripe, and how many samples the three parts have.
EXPECTED = {
    "pets": ([0, 1, 2], (3, 1, 1)),  # trainval.txt names four, of which the fourth is held out
    "cityscapes": ([0, 1, 18, 255], (2, 1, 0)),
    "voc": ([0, 15, 20, 255], (2, 1, 0)),
    "ade20k": ([255, 0, 149], (2, 2, 0)),
    "camvid": ([0, 3, 10, 255], (2, 1, 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_from_the_folder_to_class_ids(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = TREES[name](tmp_path / "data" / "inner")
    before = sorted(root.rglob("*"))
    written = write_config(tmp_path / "data", Path("out/config.yaml"), machine=MACHINE)
    assert sorted(root.rglob("*")) == before
    config = load_config(written.config)
    parts = read_parts(configured_tables(config.data, Tables()), config)
    ids, counts = EXPECTED[name]
    assert tuple(len(parts[part]) for part in ("training", "validation", "test")) == counts
    classes = config.mask.preprocessing.class_map()
    for sample in (s for samples in parts.values() for s in samples):
        assert sample.image.is_file()
        assert sample.image.stem.split("_leftImg8bit")[0] == sample.mask.stem.split("_gtFine")[0]
        labels = read_mask(sample.mask, classes)
        assert labels[0].tolist() == np.repeat(ids, SIZE[1] // len(ids)).tolist()
    table = (tmp_path / "out/config_tables/train.csv").read_text()
    assert "../../data/inner/" in table
    assert str(tmp_path) not in table + written.config.read_text()


def test_cityscapes_agrees_with_torchvision():
    from torchvision.datasets import Cityscapes

    official = [c for c in Cityscapes.classes if 0 <= c.train_id < 255]
    assert [(c.name, c.value, c.color) for c in cityscapes._CLASSES] == [(c.name, c.id, c.color) for c in official]
    assert [c.train_id for c in official] == list(range(19))
    assert list(cityscapes._IGNORED) == sorted(c.id for c in Cityscapes.classes if c.train_id == 255)


def test_voc_agrees_with_torchvision_and_the_published_palette(tmp_path):
    from torchvision.models import segmentation

    known = voc.LAYOUT.read(voc_tree(tmp_path))
    official = segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert ["__background__", *[c.name for c in known.classes[1:]]] == official
    shown = {"background": (0, 0, 0), "aeroplane": (128, 0, 0), "car": (128, 128, 128), "person": (192, 128, 128),
             "diningtable": (192, 128, 0), "pottedplant": (0, 64, 0), "tvmonitor": (0, 64, 128)}  # fmt: skip
    colors = {c.name: c.color for c in known.classes}
    assert {name: colors[name] for name in shown} == shown
    assert voc.voc_color(255) == (224, 224, 192)  # the void of the published label pictures


def test_folders_like_camvids_are_not_camvid(tmp_path):
    camvid_tree(tmp_path / "theirs")
    assert find_layout(tmp_path / "theirs")[0].name == "camvid"
    for part in ("train", "trainannot"):
        picture(tmp_path / "mine" / part / "frame_1.png")
    text(tmp_path / "mine/train.txt", "train/frame_1.png trainannot/frame_1.png")
    assert find_layout(tmp_path / "mine") is None
    assert find_layout(tmp_path / "mine", "camvid") is not None  # who names it is believed


def test_camvid_agrees_with_the_benchmark():
    config = load_config(Path(__file__).parents[2] / "benchmarks/camvid/fpn_mobilenetv3.yaml")
    theirs = config.mask.preprocessing
    assert [(c.name, c.color) for c in camvid._CLASSES] == [(c.name, c.color) for c in theirs.named]
    assert theirs.ignore_index == 11


def test_ade20k_takes_its_names_from_the_release(tmp_path):
    root = ade20k_tree(tmp_path)
    rows = [f"{i}\t0.1\t1\t1\tthing {i}, item" for i in range(1, 151)]
    rows[0], rows[58], rows[130] = (
        "1\t0.1576\t11664\t1172\twall",
        "59 \t0\t1\t1\tscreen, door",
        "131\t0\t1\t1\tscreen, silver",
    )
    text(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName", *rows)
    names = [c.name for c in find_layout(root)[0].read(root).classes]
    assert (names[0], names[1], names[149]) == ("wall", "thing 2", "thing 150")
    assert (names[58], names[130]) == ("screen, door", "screen, silver")  # one word for both would not do
    text(root / "objectInfo150.txt", "Idx\tName", *rows[:-1])
    with pytest.raises(DataError, match="expected the classes 1 to 150, found 149"):
        find_layout(root)[0].read(root)


def test_ade20k_without_names(tmp_path):
    known = find_layout(ade20k_tree(tmp_path))[0].read(tmp_path)
    assert [c.name for c in known.classes] == [f"class_{i}" for i in range(1, 151)]
    assert "objectInfo150.txt" in known.notes[-1]


def test_pets_says_what_no_list_names(tmp_path):
    root = pets_tree(tmp_path)
    picture(root / "images/dog_9.jpg")
    notes = " ".join(find_layout(root)[0].read(root).notes)
    assert "1 image(s) without a partner (dog_9)" in notes
    assert "1 image(s) that no list names (cat_5)" in notes
    assert "ignore_index: 3" in notes
    assert "trimap(s)" not in notes  # the archive's ._cat_0.png is no trimap


@pytest.mark.parametrize(
    ("name", "gone", "said"),
    [
        ("pets", ["images/cat_1.jpg", "annotations/trimaps/cat_2.png"], ["cat_1.jpg: no such", "cat_2.png: no such"]),
        ("cityscapes", ["gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png",
                        "leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png"],
         ["aachen_000001_000019_gtFine_labelIds.png: no such", "munster_000001_000019_gtFine_labelIds.png: has no",
          "expected files like"]),
        ("voc", ["JPEGImages/2007_000032.jpg", "ImageSets/Segmentation/val.txt"],
         ["2007_000032.jpg: no such", "val.txt: cannot be read"]),
        ("ade20k", ["annotations/training/ADE_train_00000002.png", "images/validation/ADE_val_00000001.jpg"],
         ["ADE_train_00000002.png: no such", "ADE_val_00000001.png: has no image"]),
        ("camvid", ["trainannot/0001TP_train1.png", "test.txt"], ["0001TP_train1.png: no such", "test.txt: cannot"]),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_at_once(name, gone, said, tmp_path):
    root = TREES[name](tmp_path)
    for file in gone:
        (root / file).unlink()
    with pytest.raises(DataError) as caught:
        find_layout(root, name)[0].read(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + len(said)
    assert all(any(word in line for line in lines[1:]) for word in said)


def test_an_empty_list(tmp_path):
    root = camvid_tree(tmp_path)
    (root / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val.txt: expected one line for each sample, found none"):
        find_layout(root)[0].read(root)


def test_a_value_that_the_data_set_does_not_have(tmp_path):
    root = pets_tree(tmp_path / "data")
    stripes(root / "annotations/trimaps/cat_3.png", [0, 2])
    with pytest.raises(DataError, match=r"cat_3.png: the value 0 is none of Oxford-IIIT Pet's"):
        write_config(root, tmp_path / "c.yaml", machine=MACHINE)
    assert not (tmp_path / "c.yaml").exists()
    assert not (tmp_path / "c_tables").exists()


def test_forms_that_prove_nothing(tmp_path):
    exported = voc_tree(tmp_path / "export")
    text(exported / "labelmap.txt", "bolt:255,0,0::")
    assert find_layout(exported) is None
    assert find_layout(exported, "voc")[0].name == "voc"  # told so, it believes it
    other = ade20k_tree(tmp_path / "other")
    for file in (other / "images/training").iterdir():
        file.rename(file.with_name(file.name.replace("ADE_train_", "scan")))
    assert find_layout(other) is None


def test_words_for_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"--layout coco: expected one of pets, cityscapes, voc, ade20k, camvid"):
        find_layout(tmp_path, "coco")
    with pytest.raises(DataError, match=r"expected Cityscapes .*, found no leftImg8bit/train, no gtFine/train"):
        find_layout(tmp_path, "cityscapes")
    for year in ("VOC2007", "VOC2012"):
        voc_tree(tmp_path / "VOCdevkit" / year)
    with pytest.raises(DataError, match="found VOCdevkit/VOC2007, VOCdevkit/VOC2012; give one of them"):
        find_layout(tmp_path)
