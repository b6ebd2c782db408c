"""The pictures that show which values a network's tensors take: a few of those that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image
from segdeploy.data.table import read_table
from segdeploy.errors import DataError
from segdeploy.run_folder import find_run, part_table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec, Preprocessing

_INSTEAD = "give training images with --calibrate TABLE"


class CalibrationImages(Sequence["NDArray[np.uint8]"]):
    """Pictures as the runtime gives them to the graph, each (1, H, W, 3) uint8; read anew whenever they are asked for.

    Indexing raises DataError for a file that cannot be read, see `read_image`.
    """

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths = tuple(paths)
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, at: slice) -> CalibrationImages: ...
    def __getitem__(self, at: int | slice) -> NDArray[np.uint8] | CalibrationImages:
        if isinstance(at, slice):
            return CalibrationImages(self.paths[at], self.preprocessing)
        return resize_image(read_image(self.paths[at]), self.preprocessing)[None]


def calibration_images(samples: Sequence[Sample], spec: ModelSpec, count: int, seed: int = 0) -> CalibrationImages:
    """At most `count` of the samples' images, drawn without repetition; the same for the same samples and seed.

    Args:
        samples: masks are not looked at.
        spec: the size of the graph's input, and how an image comes to it.
        count: at least 1.
        seed: of the draw. The images are in the draw's order, so that the first few are a fair choice too.

    Raises:
        DataError: no samples, or a count below 1.
    """
    if count < 1:
        raise DataError(f"calibration: expected 1 image or more, asked for {count}")
    if not samples:
        raise DataError(f"calibration: expected images, found no sample; {_INSTEAD}")
    drawn = np.random.default_rng(seed).permutation(len(samples))[:count]
    return CalibrationImages([samples[i].image for i in drawn], spec.preprocessing)


def training_samples(run: Path, spec: ModelSpec) -> list[Sample]:
    """The samples that a run was trained on, without their masks.

    Args:
        run: a run folder, or the model folder in it.
        spec: names the image column.

    Raises:
        DataError: a model folder that was copied by itself, an imported run, or images that have moved; the message
            names the file that is missing.
    """
    root = find_run(run)
    table = None if root is None else part_table(root, "training")
    if table is None or not table.is_file():
        missing = f"{run}: has no training table" if table is None else f"{table}: no such file"
        raise DataError(f"calibration: {missing}; {_INSTEAD}")
    samples = read_table(table, spec.image_column, None, None)
    gone = next((s.image for s in samples if not s.image.is_file()), None)
    if gone is not None:
        raise DataError(f"calibration: {gone}: no such file, although {table} names it; {_INSTEAD}")
    return samples
