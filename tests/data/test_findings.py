"""Labels that lie are found, each with its file and rule; and a clean data set gives no finding, in every encoding."""

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from segdeploy.config.preprocessing import Allowable
from segdeploy.config.schema import MaskPreprocessing
from segdeploy.data.discover import settle_classes
from segdeploy.data.facts import read_part_facts
from segdeploy.data.findings import Finding, findings_text, refusal
from segdeploy.data.scan import check, judge
from segdeploy.data.table import Sample
from segdeploy.errors import DataError

NAMES = ("road", "car", "tree")
COLORS = ((128, 64, 128), (0, 0, 142), (107, 142, 35))
NAMED = {"classes": [{"name": n, "color": c} for n, c in zip(NAMES, COLORS, strict=True)]}
IDS = {"classes": list(NAMES)}
SIZE = (24, 32)


class Folder:
    """Six samples to train on and three to validate with, all of them good, until a test spoils them."""

    def __init__(self, path):
        self.path = path
        self.rng = np.random.default_rng(0)
        self.labels = [self.rng.integers(0, 3, (6, 8)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(9)]
        self.samples = [Sample(path / f"img_{i}.png", path / f"mask_{i}.png") for i in range(9)]
        for sample, labels in zip(self.samples, self.labels, strict=True):
            self.put(sample.image, self.noise())
            self.put(sample.mask, labels)

    def noise(self):
        return self.rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)

    def put(self, path, pixels, **settings):
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **settings)

    def put_masks(self, change, of=range(9)):
        for i in of:
            self.put(self.samples[i].mask, change(self.labels[i]))

    def swap(self, i, **paths):
        self.samples[i] = Sample(**{"image": self.samples[i].image, "mask": self.samples[i].mask} | paths)

    @property
    def parts(self):
        return {"training": self.samples[:6], "validation": self.samples[6:]}

    def findings(self, keys=IDS, allow=()):
        facts = read_part_facts(self.parts)
        mask = MaskPreprocessing.model_validate_json(json.dumps(keys))
        return check(facts, settle_classes([f for some in facts.values() for f in some], mask, "masks"), allow)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def indexed(labels, colors):
    picture = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    picture.putpalette([level for color in colors for level in color])
    return picture


def colored(labels):
    return np.array(COLORS, np.uint8)[labels]


def smooth(pixels):
    return (
        Image.fromarray(pixels).resize((16, 12), Image.Resampling.BILINEAR).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    )


def with_value(labels, value, place=(5, 7)):
    labels = labels.astype(np.uint16 if value > 255 else np.uint8)
    labels[place] = value
    return labels


@pytest.mark.parametrize(
    ("spelling", "keys"),
    [
        (lambda m: m, IDS),
        (lambda m: with_value(m, 255), IDS),
        (lambda m: with_value(m, 9), IDS | {"ignore_index": 9}),
        (lambda m: m.astype(np.uint16), IDS),
        (lambda m: np.stack([m] * 3, -1), IDS),
        (lambda m: indexed(m, COLORS), NAMED),
        (lambda m: indexed(m, [(0, 0, 0)] * 3), {"classes": [{"name": "a", "color": [0] * 3}, *NAMED["classes"][1:]]}),
        (lambda m: (m * 50).astype(np.uint8), {"classes": [{"name": n, "value": 50 * i} for i, n in enumerate(NAMES)]}),
        (lambda m: m + np.uint8(1), {"num_classes": 3}),
        (colored, NAMED),
        (colored, {"num_classes": 3}),
        (lambda m: indexed(m, COLORS), NAMED | {"encoding": "color"}),
        (lambda m: (m > 0).astype(np.uint8) * np.uint8(255), {"classes": ["ground", "thing"]}),
        (lambda m: m > 0, {"classes": ["ground", "thing"]}),
        (lambda m: m, {"num_classes": "auto"}),
    ],
)  # fmt: skip
def test_clean_folder_gives_no_finding(folder, spelling, keys):
    folder.put_masks(spelling)
    assert folder.findings(keys) == []


def leak(f):
    shutil.copy(f.samples[2].image, f.samples[7].image)


def turned(f):
    exif = Image.Exif()
    exif[0x0112] = 6
    f.put(f.samples[3].image, f.noise(), exif=exif)


def jpeg(f):
    f.swap(4, mask=f.path / "mask_4.jpg")
    f.put(f.samples[4].mask, f.labels[4])


def cut(f):
    f.samples[1].image.write_bytes(f.samples[1].image.read_bytes()[:900])


LIES = {
    "value of nobody": (lambda f: f.put(f.samples[0].mask, with_value(f.labels[0], 7)), IDS, "stray", "mask_0.png",
                        "7 in 1 pixels, first at row 5, column 7"),
    "colour of nobody": (lambda f: (f.put_masks(colored), f.put(f.samples[1].mask, np.where(
        (f.labels[1] == 2)[..., None], np.uint8(9), colored(f.labels[1])))), NAMED, "stray", "mask_1.png",
        r"\(9, 9, 9\) in \d+ pixels"),
    "16-bit scaling": (lambda f: f.put(f.samples[2].mask, f.labels[2].astype(np.uint16) * 257), IDS, "stray",
                       "mask_2.png", "8-bit values times 257"),
    "ids where colours are": (lambda f: (f.put_masks(colored), f.put(f.samples[3].mask, f.labels[3])), NAMED, "stray",
                              "mask_3.png", "look like class ids: set `encoding: class_id`"),
    "colours where ids are": (lambda f: f.put(f.samples[4].mask, colored(f.labels[4])), IDS | {"encoding": "class_id"},
                              "mask-kind", "mask_4.png", "set `encoding: color`"),
    "smoothed edges": (lambda f: (f.put_masks(colored), f.put(f.samples[5].mask, smooth(colored(f.labels[5])))), NAMED,
                       "smoothed", "mask_5.png", "without antialiasing"),
    "jpeg": (jpeg, IDS, "jpeg-mask", "mask_4.jpg", "save masks as PNG"),
    "another size": (lambda f: f.put(f.samples[6].mask, f.labels[6][:-4]), IDS, "size", "mask_6.png", "found 32x20"),
    "turned by a tag": (turned, IDS, "size", "mask_3.png", "the EXIF tag turns only one of them"),
    "cut file": (cut, IDS, "unreadable", "img_1.png", "broken"),
    "empty file": (lambda f: f.samples[2].mask.write_bytes(b""), IDS, "unreadable", "mask_2.png", "0 bytes"),
    "missing file": (lambda f: f.samples[8].mask.unlink(), IDS, "unreadable", "mask_8.png", "no such file"),
    "copy of the image": (lambda f: f.put(f.samples[5].mask, Image.open(f.samples[5].image).copy()),
                          IDS | {"encoding": "class_id"}, "copy", "mask_5.png", "is a copy of its image"),
    "swapped columns": (lambda f: f.swap(0, image=f.samples[0].mask, mask=f.samples[0].image),
                        IDS | {"encoding": "class_id"}, "swapped", "img_0.png", "are the columns swapped"),
    "leak": (leak, IDS, "leak", "img_7.png", r"stands in validation and in training \(as img_2.png, with another mask"),
    "one picture, two masks": (lambda f: shutil.copy(f.samples[0].image, f.samples[4].image), IDS, "conflict",
                               "img_4.png", "their masks differ"),
    "palette out of order": (lambda f: f.put(f.samples[2].mask, indexed(f.labels[2], COLORS[::-1])), NAMED, "palette",
                             "mask_2.png", "not in the order of the classes"),
    "ids from 1": (lambda f: f.put_masks(lambda m: m + np.uint8(1)), IDS, "off-by-one", "mask_0.png", "ids begin at 1"),
    "last id ignored": (lambda f: f.put_masks(lambda m: m + np.uint8(1)), IDS | {"ignore_index": 3},
                    "off-by-one", "mask_0.png",
                        "never 0: ids begin at 1"),
    "0 is other": (lambda f: f.put_masks(lambda m: with_value(m, 3)), IDS,
                    "off-by-one", "mask_0.png", "reduce_zero_label"),
    "0/255 as ids": (lambda f: f.put_masks(lambda m: (m > 0).astype(np.uint8) * np.uint8(255)),
                     {"classes": ["ground", "thing"], "encoding": "class_id"},
                    "binary-mask", "mask_0.png", "set `encoding: b"),
    "all of one class": (lambda f: f.put_masks(lambda m: m * np.uint8(0)), IDS, "one-class", "mask_0.png", "'road'"),
    "nothing labelled": (lambda f: f.put_masks(lambda m: m | np.uint8(255), range(6)), IDS, "no-labels", "mask_0.png",
                         "like all training masks, it holds no labelled pixel"),
}  # fmt: skip


# What these rules find lies in all masks; the first is named.
WHOLE = ("off-by-one", "binary-mask", "one-class", "no-labels")


def test_there_are_twenty_lies_and_more():
    assert len(LIES) >= 20


@pytest.mark.parametrize("lie", LIES)
def test_lie_is_an_error_that_names_the_file(folder, lie):
    spoil, keys, rule, name, said = LIES[lie]
    spoil(folder)
    errors = [f for f in folder.findings(keys) if f.severity == "error"]
    hits = [f for f in errors if f.rule == rule]
    assert [f.file and f.file.name for f in hits] == [name]
    assert re.search(said, hits[0].message)
    # Nothing else is accused, but for the values that go with a shift, a copy or a swap.
    assert {f.rule for f in errors} <= {rule, "stray", "smoothed", "mask-kind"} | (
        {"copy"} if rule == "swapped" else set()
    )
    if rule not in WHOLE and "mask-kind" not in {f.rule for f in errors}:
        assert {f.file.name for f in errors} == {name}


def stem(f):
    f.samples[1], f.samples[2] = (Sample(f.samples[i].image, f.samples[3 - i].mask) for i in (1, 2))


def upside_down(f):
    exif = Image.Exif()
    exif[0x0112] = 3
    f.put(f.samples[3].image, f.noise(), exif=exif)


def pages(f):
    f.swap(0, mask=f.path / "mask_0.tif")
    f.put(f.samples[0].mask, f.labels[0], save_all=True, append_images=[Image.fromarray(f.labels[1])])


SURPRISES = {
    "absent-class": (lambda f: f.put_masks(lambda m: m.clip(0, 1)), IDS, [None], r"class\(es\) tree"),
    "swallowed": (lambda f: f.put_masks(lambda m: np.where(m == 2, np.uint8(255), m)), IDS,
                       ["mask_0.png"], "one of them"),
    "mostly-ignored": (lambda f: f.put_masks(lambda m: np.where(np.arange(24)[:, None] < 20, np.uint8(255), m)), IDS,
                       ["mask_0.png"], "83% of all pixels"),
    "empty-mask": (lambda f: f.put(f.samples[1].mask, np.full(SIZE, 255, np.uint8)), IDS, ["mask_1.png"], "teaches"),
    "flat-masks": (lambda f: [f.put(s.mask, np.full(SIZE, i % 3, np.uint8)) for i, s in enumerate(f.samples)], IDS,
                   ["mask_0.png"], "each of the 6 masks"),
    "alpha": (lambda f: f.put(f.samples[2].mask, np.dstack([f.labels[2]] * 3 + [f.labels[2] * 127])), IDS,
              ["mask_2.png"], "are transparent"),
    "orientation": (upside_down, IDS, ["mask_3.png"], "EXIF"),
    "pages": (pages, IDS, ["mask_0.tif"], "has 2 pages"),
    "stems": (stem, IDS, ["img_1.png", "img_2.png"], "has the mask mask_[12].png, which is called like img_[12].png"),
    "duplicate-row": (lambda f: f.samples.insert(0, f.samples[0]), IDS, ["img_0.png"], "delete a row"),
    "repeated": (lambda f: (shutil.copy(f.samples[0].image, f.samples[4].image),
                            shutil.copy(f.samples[0].mask, f.samples[4].mask)), IDS, ["img_4.png"], "the same mask"),
    "shared-mask": (lambda f: f.swap(4, mask=f.samples[1].mask), IDS, ["mask_1.png"], "2 different pictures"),
}  # fmt: skip


@pytest.mark.parametrize("rule", SURPRISES)
def test_surprise_is_a_warning_that_can_be_allowed(folder, rule):
    spoil, keys, names, said = SURPRISES[rule]
    spoil(folder)
    found = folder.findings(keys)
    assert {f.severity for f in found} == {"warning"}
    hits = [f for f in found if f.rule == rule]
    assert sorted((f.file and f.file.name for f in hits), key=str) == names
    assert all(re.search(said, f.message) for f in hits)
    assert rule not in {f.rule for f in folder.findings(keys, allow=(rule,))}


def test_every_rule_that_can_be_allowed_is_tested():
    assert set(get_args(Allowable)) == {*SURPRISES, "leak", "conflict", "copy", "palette", "off-by-one", "binary-mask",
                                        "one-class"}  # fmt: skip


def test_class_missing_from_one_part(folder):
    folder.put_masks(lambda m: m.clip(0, 1), of=range(6, 9))
    (found,) = folder.findings()
    assert (found.severity, found.rule) == ("warning", "absent-class")
    assert found.message.startswith("no validation mask holds the class(es) tree")
    folder.put_masks(lambda m: m.clip(1, 2), of=range(6))
    messages = [f.message for f in folder.findings()]
    assert any(
        m.startswith("no training mask holds the class(es) road: they will never be predicted") for m in messages
    )


def test_leak_without_the_training_part_is_a_warning(folder):
    shutil.copy(folder.samples[6].image, folder.samples[7].image)
    facts = read_part_facts({"validation": [folder.samples[6]], "test": [folder.samples[7]]})
    classes = settle_classes([], MaskPreprocessing(classes=NAMES), "masks")
    assert [(f.severity, f.file.name) for f in check(facts, classes) if f.rule == "leak"] == [("warning", "img_7.png")]


def test_pictures_of_one_colour_are_no_leak(folder):
    for i in (0, 7, 8):
        folder.put(folder.samples[i].image, np.zeros((*SIZE, 3), np.uint8))
    assert folder.findings() == []


def test_a_few_files_stand_for_many_with_the_same_fault():
    def stray(i, value):
        return Finding("error", "stray", Path(f"{i}.png"), f"found {value} (in {i} pixels)", f"found {value}")

    found = [stray(i, 7 if i % 4 else 9) for i in range(80)] + [Finding("error", "size", None, "30x20")]
    assert findings_text(found).splitlines() == [
        "stray (80)",
        *(f"  {i}.png: found 7 (in {i} pixels)" for i in (1, 2, 3, 5, 6)),
        "  and 55 more: found 7",
        *(f"  {i}.png: found 9 (in {i} pixels)" for i in (0, 4, 8, 12, 16)),
        "  and 15 more: found 9",
        "size",
        "  30x20",
    ]  # fmt: skip
    assert findings_text(found[:20]).count("(in") == 20  # few are all named


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a_{}_leftImg8bit", "a_{}_gtFine_labelTrainIds"), ("{:06}", "{}_L"), ("IMG-{}", "seg {}"), ("x{}", "y{}")],
)
def test_names_of_known_data_sets_agree(folder, image, mask):
    for i, s in enumerate(folder.samples):
        paths = {
            "image": folder.path / f"{image.format(i)}.png",
            "mask": folder.path / f"{i}" / f"{mask.format(i)}.png",
        }
        paths["mask"].parent.mkdir()
        s.image.rename(paths["image"])
        s.mask.rename(paths["mask"])
        folder.swap(i, **paths)
    assert folder.findings() == []


def test_all_errors_come_at_once_grouped_and_cut(folder):
    findings = [Finding("error", "leak", folder.path / f"{i}.png", f"found {i}") for i in range(332)]
    lines = findings_text(findings).splitlines()
    assert (lines[0], lines[1], lines[-1], len(lines)) == (
        "leak (332)", f"  {folder.path / '0.png'}: found 0", "  and 312 more", 22,
    )  # fmt: skip
    leak(folder)
    folder.samples[0].image.unlink()
    facts = read_part_facts(folder.parts)
    classes = settle_classes([], MaskPreprocessing(classes=NAMES, encoding="class_id"), "masks")
    with pytest.raises(DataError) as caught:
        judge(facts, classes)
    text = str(caught.value)
    assert text.startswith("the data have 2 error(s):\nunreadable\n")
    assert text.endswith("say so in the configuration: preprocessing: {allow: [leak]}")
    assert "allow" not in refusal([Finding("error", "stray", None, "found 7")])
    with pytest.raises(DataError, match="1 error"):
        judge(facts, classes, allow=("leak",))


def test_warnings_are_said_once(folder, caplog):
    folder.samples.insert(0, folder.samples[0])
    facts = read_part_facts(folder.parts)
    reports = judge(facts, settle_classes([], MaskPreprocessing(classes=NAMES, encoding="class_id"), "masks"))
    assert set(reports) == {"training", "validation"}
    (line,) = caplog.messages
    assert line.startswith("the data have 1 surprise(s):\nduplicate-row\n")
