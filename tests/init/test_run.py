"""A data set in, a configuration out that parses, says what is true, and trains as it is."""

import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segdeploy.cli import main
from segdeploy.config import load_config
from segdeploy.data.demo import CLASS_NAMES
from segdeploy.data.split import configured_tables, read_parts
from segdeploy.data.table import Tables
from segdeploy.errors import DataError, SegdeployError
from segdeploy.init.choose import LARGE, SMALL, choose
from segdeploy.init.look import MaskTotals
from segdeploy.init.machine import Machine, this_machine
from segdeploy.init.run import write_config
from segdeploy.init.settle import settle
from segdeploy.init.text import scalar

CPU = Machine(cores=2, memory=8 << 30)
GPU = Machine(cores=16, memory=64 << 30, gpu="NVIDIA H100", gpu_memory=80 << 30)
CACHED = Machine(cores=2, memory=8 << 30, cached=frozenset({SMALL.repository}))
QUICK = ("--set", "trainer.epochs=1", "--set", "encoder.model_name=mobilenetv3_small_050", "--set",
         "input_features.0.preprocessing={height: 32, width: 64}", "--set", "augmentation=[]", "--set",
         "decoder={type: fpn, num_channels: 8, merge_channels: 8}", "--device", "cpu")  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """tmp_path/data with 12 pairs of 40 x 60: mostly 0, a column of 1, one pixel of 2 and a row of 255."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"data/images/{i:02}.jpg")
        mask = np.zeros((40, 60), np.uint8)
        mask[:, 5] = 1
        mask[7, 9] = 2
        mask[30] = 255
        Image.fromarray(mask).save(tmp_path / f"data/masks/{i:02}.png")
    return Path("data")


def facts(counts, size=(360, 480), masks=10):
    """Facts of masks that all have the same pixels."""
    together = Counter({frozenset(counts): masks})
    pixels = Counter({value: count * masks for value, count in counts.items()})
    first = dict.fromkeys(counts, Path("m.png"))
    return MaskTotals(masks=masks, colors=False, pixels=pixels, together=together, first=first,
                     sizes=Counter({size: masks}))  # fmt: skip


def plan(counts=None, size=(360, 480), samples=367, split=False, machine=CPU):
    found = facts(counts or {0: 100, 1: 100}, size)
    return choose(found, settle(found, None, "data"), samples, split, machine)


def test_the_text_says_what_is_true(folder):
    config = write_config(folder, Path("config.yaml"), machine=CPU).config
    text = config.read_text()
    assert text.startswith(
        "# A data set as segdeploy init found it. This trains on it:\n#   segdeploy train -c config.yaml\n"
    )
    # By hand: 12 masks of 2400 pixels; 60 are 255, a column without that row is 1 (39), one pixel is 2.
    assert "- {name: class_0}  # 98.29%, 12\n" in text  # 2300 / 2340
    assert "- {name: class_1}  # 1.67%, 12\n" in text
    assert "- {name: class_2}  # 0.04%, 12\n" in text
    assert "255 has 2.50% of the pixels" in text
    said = " ".join(line.strip().removeprefix("# ") for line in text.splitlines() if line.strip().startswith("#"))
    assert "Image and mask pairs: 12 in all." in said
    assert "All 12 masks looked at are 40x60 (height x width); brought to multiples of 32." in said
    assert "the median class is 39.0 times as frequent as the rarest (class_2)" in said
    assert "7 training images; 100 epochs show 700 samples." in said  # 0.6 of 12
    assert "A step on 2 pictures of 64x64 takes about 16 MiB of memory." in said  # 2 * 64 * 64 * 2000 bytes
    settings = load_config(config)
    assert [(loss.type, loss.class_weights) for loss in settings.mask.losses] == [
        ("softmax_cross_entropy", "auto"),
        ("dice", None),
    ]
    assert settings.mask.preprocessing.ignore_index == 255
    assert (settings.image.preprocessing.height, settings.image.preprocessing.width) == (64, 64)
    parts = read_parts(configured_tables(settings.data, Tables()), settings)
    assert [len(samples) for samples in parts.values()] == [7, 3, 2]
    assert len({s.image for samples in parts.values() for s in samples}) == 12


def test_the_text_is_stable_and_names_no_place(folder, tmp_path):
    first = write_config(folder, Path("a/config.yaml"), machine=CPU).config.read_text()
    again = write_config(tmp_path / folder, Path("a/config.yaml"), machine=CPU, force=True).config.read_text()
    assert first == again
    assert str(tmp_path) not in first
    assert "dataset: ../data\n" in first
    assert max(map(len, first.splitlines())) <= 120


def test_what_is_there_stays(folder):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    config = Path("config.yaml")
    config.write_text("mine")
    with pytest.raises(SegdeployError, match=r"config.yaml: is there already; give --force"):
        write_config(folder, config, machine=CPU)
    assert config.read_text() == "mine"
    with pytest.raises(SegdeployError, match="lies in the data folder"):
        write_config(folder, folder / "config.yaml", machine=CPU)
    with pytest.raises(SegdeployError, match="is a folder; give a file"):
        write_config(folder, Path(), machine=CPU, force=True)
    write_config(folder, config, machine=CPU, force=True)
    assert load_config(config)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_tables_that_are_there_stay(folder):
    for file in (folder / "masks").iterdir():
        file.rename(file.with_stem(f"{file.stem}_mask"))
    Path("config_tables").mkdir()
    with pytest.raises(SegdeployError, match="config_tables: is there already; give --force"):
        write_config(folder, Path("config.yaml"), machine=CPU)
    written = write_config(folder, Path("config.yaml"), machine=CPU, force=True)
    assert written.tables == (Path("config_tables/data.csv"),)
    assert "../data/images/00.jpg,../data/masks/00_mask.png" in written.tables[0].read_text()


def test_one_sample_is_too_few(folder):
    for file in [*(folder / "images").iterdir(), *(folder / "masks").iterdir()]:
        if file.stem != "00":
            file.unlink()
    with pytest.raises(DataError, match="at least two samples"):
        write_config(folder, Path("config.yaml"), machine=CPU)
    assert not Path("config.yaml").exists()


@pytest.mark.parametrize("count", [2, 3, 5, 9, 10, 12, 49, 50, 51])
def test_a_random_split_leaves_no_part_empty(count):
    from segdeploy.config.preprocessing import Split
    from segdeploy.data.split import split_samples
    from segdeploy.data.table import Sample

    shares = plan(samples=count, split=True).probabilities
    parts = split_samples([Sample(Path(str(i))) for i in range(count)], Split(probabilities=shares), 42, "data")
    assert parts["training"]
    assert parts["validation"]
    assert f"{len(parts['training'])} training images" in plan(samples=count, split=True).epochs_why


def test_sizes():
    assert plan().size == (352, 480)
    assert plan(size=(40, 30)).size == (64, 64)
    assert plan(size=(2000, 1000)).size == (576, 288)  # 576 x 288 is 166k of 170k pixels; 2 : 1 as before
    assert plan(size=(2000, 1000), machine=GPU).size == (1440, 736)
    assert plan(size=(1024, 2048), machine=GPU).size == (736, 1440)
    for size in ((100, 3000), (719, 1281), (480, 640)):
        for machine in (CPU, GPU):
            height, width = plan(size=size, machine=machine).size
            assert height % 32 == width % 32 == 0
            assert height >= 64 <= width
            assert height * width <= 1.3 * max(size[0] * size[1], 64 * 64)


def test_the_middle_size_by_area():
    found = facts({0: 1, 1: 1})
    sizes = Counter({(100, 900): 2, (200, 300): 3, (400, 500): 2})
    mixed = MaskTotals(masks=7, colors=False, pixels=found.pixels, together=found.together, first=found.first,
                      sizes=sizes)  # fmt: skip
    assert mixed.median_size == (100, 900)  # 60,000 three times, 90,000 twice, 200,000 twice
    chosen = choose(mixed, settle(mixed, None, "data"), 7, False, CPU)
    assert "The 7 masks looked at are 100 to 400 high and 300 to 900 wide; the middle one by area is 100x900" in (
        chosen.size_why
    )


def test_the_machine_decides():
    small, large, cached = plan(), plan(machine=GPU), plan(machine=CACHED)
    assert (small.network, small.mixed_precision, small.batch_size) == (SMALL, False, 8)
    assert (large.network, large.mixed_precision, large.batch_size) == (LARGE, True, 16)
    assert "NVIDIA H100, 80 GiB" in large.network_why
    assert (small.pretrained, cached.pretrained) == (False, True)
    assert "not in the local cache" in small.pretrained_why
    assert float(cached.learning_rate) < float(small.learning_rate)
    assert plan(machine=Machine(cores=2, memory=1 << 30)).batch_size == 2  # 8 pictures need 1.6 GiB
    assert plan(samples=9).batch_size == 2
    assert plan(samples=100_000).epochs == 10
    assert plan(samples=5).epochs == 100
    assert cached.epochs < small.epochs  # what the encoder knows already


def test_windows_of_large_pictures_look_for_rare_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(10):
        mask = np.zeros((200, 300), np.uint8)
        mask[:20, :30] = 1
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (200, 300, 3)).astype(np.uint8)).save(
            tmp_path / "data" / "images" / f"{number}.png"
        )
    config = write_config(Path("data"), Path("config.yaml"), machine=CPU).config
    crop = next(step for step in load_config(config).image.augmentation if step.type == "random_crop")
    assert (crop.height, crop.width) == (160, 224)
    assert (crop.rare_class_probability, crop.cat_max_ratio) == (0.5, 0.75)
    assert "half of them about a pixel of a rare class" in config.read_text()


@pytest.mark.parametrize(("counts", "weighted"), [({0: 900, 1: 90, 2: 10}, False), ({0: 900, 1: 101, 2: 10}, True)])
def test_a_skewed_histogram_asks_for_weights(counts, weighted):
    chosen = plan(counts)
    assert chosen.weighted == weighted
    assert f"{counts[1] / counts[2]:.1f} times as frequent as the rarest (class_2)" in chosen.weights_why


def test_weights_in_the_cache_are_those_that_timm_would_load():
    import timm

    for network in (SMALL, LARGE):
        assert timm.get_pretrained_cfg(network.model_name).hf_hub_id == network.repository


def test_the_cache_is_looked_at(tmp_path):
    # In a process of its own: the hub's client reads its variables when it is imported.
    import os
    import subprocess
    import sys

    place = tmp_path / "models--timm--mobilenetv3_large_100.ra_in1k"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("abc")
    (place / "snapshots/abc").mkdir(parents=True)
    (place / "snapshots/abc/model.safetensors").write_bytes(b"")
    names = (SMALL.repository, LARGE.repository)
    code = f"from segdeploy.init.machine import this_machine as m; print(*m({names}).cached)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"HF_HUB_CACHE": str(tmp_path)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == [SMALL.repository]


def test_this_machine():
    import os

    machine = this_machine(())
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.memory > 1 << 20


@pytest.mark.parametrize(
    "text", ["a b", "a-b", "../x/y.csv", "true", "No", "1e3", "a: b", "a #b", "a, b", "ä", '"', "~"]
)
def test_strings_come_back(text):
    from segdeploy.config.yaml12 import parse

    line = f"x: {{name: {scalar(text)}}}"
    assert parse(line, "t").value == yaml.safe_load(line) == {"x": {"name": text}}


def train(output):
    """The command that the file's second line says, and what it left."""
    words = shlex.split(output.read_text().splitlines()[1].removeprefix("#"))
    assert words[0] == "segdeploy"
    with pytest.raises(SystemExit) as caught:
        main([*words[1:], *QUICK])
    assert caught.value.code == 0
    return Path("results/experiment_run")


@pytest.mark.parametrize("form", ["folder", "csv", "voc"])
def test_train_runs_with_it(form, folder, tmp_path, tiny_table, capsys):
    if form == "csv":
        data = tiny_table
    elif form == "voc":
        data = tmp_path / "VOC2012"
        (data / "ImageSets/Segmentation").mkdir(parents=True)
        (folder / "images").rename(data / "JPEGImages")
        (folder / "masks").rename(data / "SegmentationClass")
        (data / "ImageSets/Segmentation/train.txt").write_text("".join(f"{i:02}\n" for i in range(8)))
        (data / "ImageSets/Segmentation/val.txt").write_text("08\n09\n")
    else:
        data = folder
    with pytest.raises(SystemExit) as caught:
        main(["init", str(data), "-o", "my config.yaml"])
    assert caught.value.code == 0
    assert "now: segdeploy train -c 'my config.yaml'" in capsys.readouterr().out
    run = train(Path("my config.yaml"))
    rows = [len((run / f"splits/{p}.csv").read_text().splitlines()) - 1 for p in ("training", "validation", "test")]
    expected = {"folder": [7, 3, 2], "csv": None, "voc": [8, 2, 0]}[form]
    if form == "csv":
        said = Counter(line.rsplit(",", 1)[1] for line in tiny_table.read_text().splitlines()[1:])
        expected = [said["train"], said["validation"], said["test"]]
        assert len(load_config(Path("my config.yaml")).mask.preprocessing.classes) == len(CLASS_NAMES)
    assert rows == expected
    assert re.fullmatch(r"\{.*\}\n", (run / "metrics.jsonl").read_text())


def test_samples_that_train_refuses_are_told(folder, capsys):
    Image.new("L", (30, 20)).save("data/masks/03.png")
    with pytest.raises(SystemExit) as caught:
        main(["init", "data"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "1 file(s) that train refuses:\n" in said
    assert "03.png: expected the size of 03.jpg, 60x40, found 30x20" in said
    assert said.endswith("now: correct them, then segdeploy train -c config.yaml\n")


def test_a_slip_has_no_say_in_the_weights():
    counts = {0: 50_000, 1: 50_000, 7: 1}
    skewed = settle(facts(counts), None, "data")
    assert choose(facts(counts), skewed, 367, False, CPU).weighted
    assert not choose(facts(counts), replace(skewed, slips=(2,)), 367, False, CPU).weighted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "segdeploy: nowhere: expected a table or a folder, found nothing there"),
        (["data", "--layout", "voc"], "segdeploy: data: expected Pascal VOC (JPEGImages, "),
        (["data", "--layout", "vok"], "segdeploy: --layout vok: expected one of pets, cityscapes, "),
        (["data", "-o", "data/c.yaml"], "segdeploy: data/c.yaml: lies in the data folder"),
    ],
)
def test_what_a_user_gets_wrong(folder, capsys, words, said):
    with pytest.raises(SystemExit) as caught:
        main(["init", *words])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert [p.name for p in Path().iterdir()] == ["data"]


def test_a_data_section_says_what_it_lacks():
    from segdeploy.config import parse_config
    from segdeploy.errors import ConfigError

    for text, said in (("dataset: a, test_set: b", "expected either"), ("training_set: a", "needs `dataset`, or both")):
        with pytest.raises(ConfigError, match=f"c:1: data: {said}"):
            parse_config(f"data: {{{text}}}", "c")


def test_the_command_line_wins(tmp_path):
    from segdeploy.config.schema import Data

    def same(one, other):
        return one.describe() == other.describe()

    for name in "abd":
        (tmp_path / f"{name}.csv").touch()
    parts = Data(training_set=str(tmp_path / "a.csv"), validation_set=str(tmp_path / "b.csv"))
    assert same(configured_tables(None, Tables(test=Path("t"))), Tables(test=Path("t")))
    own = Tables(training=tmp_path / "a.csv", validation=tmp_path / "b.csv")
    assert same(configured_tables(parts, Tables()), own)
    mixed = configured_tables(parts, Tables(validation=Path("c")))
    assert same(mixed, Tables(training=tmp_path / "a.csv", validation=Path("c")))
    assert same(configured_tables(parts, Tables(dataset=Path("d"))), Tables(dataset=Path("d")))
    whole = Data(dataset=str(tmp_path / "d.csv"))
    assert same(configured_tables(whole, Tables()), Tables(dataset=tmp_path / "d.csv"))
    given = Tables(training=Path("a"), validation=Path("b"))
    assert same(configured_tables(whole, given), given)
    whole = Data(dataset=str(tmp_path / "dd.csv"))
    assert same(configured_tables(whole, given), given)  # what is not looked at may be missing
    with pytest.raises(DataError, match=r"data.dataset: found nothing at .*dd\.csv; did you mean d\.csv\?"):
        configured_tables(whole, Tables())
