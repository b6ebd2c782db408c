"""Prediction with a runner that tells classes by brightness."""

import signal
import threading
import traceback

import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import ClassMap
from segdeploy.environment import available_cores
from segdeploy.errors import DataError, SegdeployError
from segdeploy.model.spec import ModelSpec, Part, Preprocessing
from segdeploy.predict import blend, predict, predict_image
from segdeploy.runtime.runner import Runner

PART = Part(name="none", config={}, distribution="none", version="0")
COLORS = ((0, 0, 90), (200, 0, 0), (0, 255, 7))


class Brightness(Runner):
    """Class 0 below 85, 1 below 170, else 2."""

    def run(self, image):
        assert image.dtype == np.uint8
        assert image.shape[1:] == (32, 48, 3)
        assert image.flags.c_contiguous
        assert image.flags.writeable  # torch warns of arrays that are not
        return (image.mean(axis=3) // 85).clip(0, 2).astype(np.uint8)

    def describe(self):
        return {"backend": "brightness"}


@pytest.fixture(params=["stretch", "letterbox"])
def spec(request):
    return ModelSpec(
        encoder=PART,
        decoder=PART,
        classes=ClassMap(names=("dark", "middle", "bright"), colors=COLORS),
        preprocessing=Preprocessing(
            height=32, width=48, resize=request.param, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
        ),
    )


def bands(height=20, width=60):
    """A picture of three upright bands, and its labels."""
    labels = np.repeat(np.array([0, 2, 1], np.uint8), width // 3)[None].repeat(height, axis=0)
    return np.array([20, 128, 240], np.uint8)[labels][..., None].repeat(3, axis=2), labels


def save(path, picture=None, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bands()[0] if picture is None else picture).save(path, **settings)
    return path


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("size", [(20, 60), (60, 20), (32, 48), (1, 3), (301, 99)])
def test_mask_has_the_size_of_its_image(spec, size):
    height, width = size
    image, labels = bands(height, width // 3 * 3)
    found = predict_image(Brightness(), spec, image)
    assert found.dtype == np.uint8
    assert found.shape == labels.shape
    if size in ((20, 60), (32, 48)):  # neither is much smaller in the network
        inside = np.ones(labels.shape[1], bool)
        for edge in (labels.shape[1] // 3, labels.shape[1] // 3 * 2):
            inside[edge - 2 : edge + 2] = False  # where antialiasing mixes two bands
        np.testing.assert_array_equal(found[:, inside], labels[:, inside])


def test_mask_is_a_palette_png_of_ids(spec, tmp_path):
    source = save(tmp_path / "photo.v2.jpg", quality=100)
    steps = []
    result = predict(Brightness(), spec, [source], tmp_path / "out", progress=lambda *step: steps.append(step))
    assert [*result.written.values()] == [tmp_path / "out" / "photo.v2.png"]
    assert result.faults == ()
    assert steps == [(1, 1)]
    with Image.open(tmp_path / "out" / "photo.v2.png") as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (60, 20))
        np.testing.assert_array_equal(np.asarray(mask)[:, 5:55:20], np.tile([0, 2, 1], (20, 1)))
        assert np.asarray(mask.convert("RGB"))[3, 5:55:20].tolist() == [list(COLORS[i]) for i in (0, 2, 1)]
    assert files(tmp_path / "out") == ["photo.v2.png"]


def test_exif_orientation_counts(spec, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (mask,) = predict(Brightness(), spec, [save(tmp_path / "a.png", exif=exif)], tmp_path / "out").written.values()
    with Image.open(mask) as picture:
        assert picture.size == (20, 60)
        assert np.asarray(picture)[5:55:20, 3].tolist() == [0, 2, 1]


def test_overlay(spec, tmp_path):
    image, labels = bands()
    mixed = blend(image, labels, spec.classes)
    expected = np.round((image + np.array(COLORS)[labels]) / 2)
    np.testing.assert_allclose(mixed, expected, atol=0.5)
    np.testing.assert_array_equal(blend(image, labels, spec.classes, share=0), image)
    predict(Brightness(), spec, [save(tmp_path / "a.png")], tmp_path / "out", overlay=True)
    assert files(tmp_path / "out") == ["a.overlay.jpg", "a.png"]
    with Image.open(tmp_path / "out" / "a.overlay.jpg") as picture:
        assert np.abs(np.asarray(picture).astype(int) - mixed)[:, 10].max() <= 12  # JPEG, in the middle of a band


def test_folders_keep_their_structure(spec, tmp_path):
    for name in ("in/a.png", "in/x/a.jpg", "in/x/y/b.tif", "single.bmp"):
        save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").touch()
    predict(Brightness(), spec, [tmp_path / "in", tmp_path / "single.bmp"], tmp_path / "out")
    assert files(tmp_path / "out") == ["a.png", "single.png", "x/a.png", "x/y/b.png"]


def test_broken_images_are_listed_and_stop_nothing(spec, tmp_path):
    for name in ("a.png", "c.png", "e.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    content = (tmp_path / "in" / "e.png").read_bytes()
    (tmp_path / "in" / "d.png").write_bytes(content[: len(content) // 2])
    result = predict(Brightness(), spec, [tmp_path / "in"], tmp_path / "out", overlay=True)
    assert [p.name for p in result.written.values()] == ["a.png", "c.png", "e.png"]
    assert [line.partition(": ")[0] for line in result.faults] == [str(tmp_path / "in" / n) for n in ("b.png", "d.png")]
    assert "b.png" not in files(tmp_path / "out")
    assert len(files(tmp_path / "out")) == 6


def test_each_mask_is_its_own_images(spec, tmp_path):
    rng = np.random.default_rng(0)
    steps = []
    for i in range(30):  # some take much longer to read than others, and some cannot be read
        size = (600, 800) if i % 4 == 0 else (20, 60)
        save(tmp_path / "in" / f"{i:02d}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8) // 3 * (i % 3 + 1))
    for i in (0, 7, 8, 29):
        (tmp_path / "in" / f"{i:02d}.png").write_bytes(b"no picture")
    inputs = [tmp_path / "in" / f"{i:02d}.png" for i in reversed(range(30))]
    result = predict(Brightness(), spec, inputs, tmp_path / "out", progress=lambda *step: steps.append(step))
    assert steps == [(i, 30) for i in range(1, 31)]
    assert [source for source in inputs if source in result.written] == [*result.written]
    assert [line.partition(": ")[0] for line in result.faults] == [str(inputs[i]) for i in (0, 21, 22, 29)]
    for source, target in result.written.items():
        with Image.open(source) as picture, Image.open(target) as mask:
            expected = predict_image(Brightness(), spec, np.asarray(picture))
            np.testing.assert_array_equal(np.asarray(mask), expected)


def test_an_engine_may_write_to_its_own_buffer_again(spec, tmp_path):
    class Reuses(Runner):
        labels = np.zeros((1, 32, 48), np.uint8)

        def run(self, image):
            self.labels[:] = image[0, 16, 24, 0]
            return self.labels

        def describe(self):
            return {}

    for i in range(24):
        save(tmp_path / "in" / f"{i:02d}.png", np.full((320, 480, 3), i % 3, np.uint8))
    result = predict(Reuses(), spec, [tmp_path / "in"], tmp_path / "out")
    for i, target in enumerate(sorted(result.written.values())):
        assert np.unique(np.asarray(Image.open(target))).tolist() == [i % 3]


class Stops(Brightness):
    """Raises at a call; counts them."""

    def __init__(self, error, at):
        self.error, self.at, self.calls = error, at, 0

    def run(self, image):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return super().run(image)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug of the engine")], ids=repr)
def test_engine_that_stops_leaves_whole_masks_and_no_threads(spec, tmp_path, error):
    for i in range(40):
        save(tmp_path / "in" / f"{i:02d}.png")
    before = threading.active_count()
    with pytest.raises(type(error)) as caught:
        predict(Stops(error, at=5), spec, [tmp_path / "in"], tmp_path / "out")
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "run"
    assert threading.active_count() == before
    assert set(files(tmp_path / "out")) <= {f"{i:02d}.png" for i in range(4)}


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C, which a process that a script has put into the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_ends_it_soon(spec, tmp_path):
    for i in range(40):
        save(tmp_path / "in" / f"{i:02d}.png")
    runner, before = Stops(None, at=-1), threading.active_count()

    def interrupt(done, total):
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:  # which keeps the frames that hold the generators
        predict(runner, spec, [tmp_path / "in"], tmp_path / "out", progress=interrupt)
    assert caught.tb is not None
    assert threading.active_count() == before
    assert 3 <= runner.calls <= 3 + min(8, max(2, available_cores())) + 1
    assert {f"{i:02d}.png" for i in range(3)} <= set(files(tmp_path / "out"))


def test_mask_that_cannot_be_written_is_one_line(spec, tmp_path):
    for i in range(9):
        save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "out").write_text("a file, where a folder is needed")
    with pytest.raises(SegdeployError, match=r"out/0.png: cannot be written"):
        predict(Brightness(), spec, [tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "inputs", "output", "said"),
    [
        (["a/x.png", "a/x.jpg"], ["a"], "out", "would both be written to .*x.png"),
        (["a/x.png", "b/x.png"], ["a", "b"], "out", "would both be written to .*x.png"),
        (["a/x.png", "b/x.png"], ["a/x.png", "b/x.png"], "out", "would both be written to .*x.png"),
        (["a/x.png"], ["a"], "a", "a/x.png: an image of the input would be overwritten"),
        (["a/k/x.jpg", "b/k/x.png"], ["a", "b/k/x.png"], "b", "b/k/x.png: an image of the input would be overwritten"),
        (["a/x.jpg", "a/x.overlay.jpg"], ["a"], "a", "x.overlay.jpg: an image of the input would be overwritten"),
        ([], ["none"], "out", "none: no such file or folder"),
    ],
)
def test_nothing_is_written_where_masks_would_collide(spec, tmp_path, names, inputs, output, said):
    before = {name: save(tmp_path / name).read_bytes() for name in names}
    with pytest.raises(DataError, match=said):
        predict(Brightness(), spec, [tmp_path / i for i in inputs], tmp_path / output, overlay=True)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_same_image_twice_is_one_mask(spec, tmp_path):
    save(tmp_path / "in" / "a.png")
    result = predict(Brightness(), spec, [tmp_path / "in", tmp_path / "in" / "a.png"], tmp_path / "out")
    assert [p.name for p in result.written.values()] == ["a.png"]
