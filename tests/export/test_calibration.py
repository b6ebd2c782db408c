"""Calibration images against Pillow, and the sentences for a run whose images are not there."""

import numpy as np
import pytest
from PIL import Image

from segdeploy.classes import ClassMap, default_colors
from segdeploy.data.table import Sample
from segdeploy.errors import DataError
from segdeploy.export.calibration import calibration_images, training_samples
from segdeploy.model.spec import ModelSpec, Part, Preprocessing


@pytest.fixture
def spec():
    part = Part(name="any", config={}, distribution="segdeploy", version="0")
    size = Preprocessing(height=20, width=30, resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    classes = ClassMap(names=("a", "b"), colors=default_colors(2))
    return ModelSpec(encoder=part, decoder=part, classes=classes, preprocessing=size, image_column="photo")


@pytest.fixture
def samples(tmp_path):
    random = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return [Sample(tmp_path / f"{i}.png") for i in range(12)]


def test_images_are_those_that_pillow_reads_and_resizes(samples, spec):
    images = calibration_images(samples, spec, 5)
    assert len(images) == len(set(images.paths)) == 5
    for image, path in zip(images, images.paths, strict=True):
        expected = Image.open(path).resize((30, 20), Image.Resampling.BILINEAR)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.asarray(expected)[None])
    again = list(images)
    assert len(again) == 5
    np.testing.assert_array_equal(again[0], images[0])


def test_the_draw_depends_on_the_seed_alone(samples, spec):
    first = calibration_images(samples, spec, 5).paths
    assert calibration_images(samples, spec, 5).paths == first
    assert calibration_images(samples, spec, 5, seed=1).paths != first
    assert first != tuple(s.image for s in samples[:5])  # tables are often sorted by scene
    assert calibration_images(samples, spec, 3).paths == first[:3] == calibration_images(samples, spec, 5)[:3].paths
    assert sorted(calibration_images(samples, spec, 99).paths) == sorted(s.image for s in samples)


def test_a_file_is_read_when_it_is_asked_for(samples, spec):
    images = calibration_images(samples, spec, 12)
    images.paths[3].unlink()
    assert images[2].shape == (1, 20, 30, 3)
    with pytest.raises(DataError, match="no such file"):
        images[3]


@pytest.mark.parametrize(
    ("chosen", "count", "said"), [([], 4, "found no sample.*--calibrate"), (None, 0, "asked for 0")]
)
def test_none_are_refused(samples, spec, chosen, count, said):
    with pytest.raises(DataError, match=said):
        calibration_images(samples if chosen is None else chosen, spec, count)


def test_the_samples_of_a_run(tmp_path, samples, spec):
    run = tmp_path / "run"
    (run / "splits").mkdir(parents=True)
    (run / "model").mkdir()
    table = run / "splits" / "training.csv"
    table.write_text("photo\n" + "".join(f"{s.image}\n" for s in samples))
    assert [s.image for s in training_samples(run, spec)] == [s.image for s in samples]
    assert [s.image for s in training_samples(run / "model", spec)] == [s.image for s in samples]
    samples[4].image.unlink()
    with pytest.raises(DataError, match=rf"{samples[4].image}: no such file.*--calibrate TABLE"):
        training_samples(run, spec)
    table.unlink()
    with pytest.raises(DataError, match=rf"{table}: no such file.*--calibrate TABLE"):
        training_samples(run, spec)


def test_a_model_folder_by_itself_has_no_samples(tmp_path, spec):
    (tmp_path / "model").mkdir()
    with pytest.raises(DataError, match="has no training table; give training images with --calibrate TABLE"):
        training_samples(tmp_path / "model", spec)
