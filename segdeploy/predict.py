"""Images to mask files; a broken image is named at the end and stops nothing."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image, restore_mask
from segdeploy.data.table import find_images
from segdeploy.errors import DataError
from segdeploy.files import write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from segdeploy.classes import ClassMap
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.runner import Runner


@dataclass(frozen=True, slots=True)
class PredictResult:
    """The masks that were written, by their images, and one line for each image that could not be read."""

    written: Mapping[Path, Path]
    faults: tuple[str, ...]


def predict(
    runner: Runner,
    spec: ModelSpec,
    inputs: Sequence[Path],
    output: Path,
    *,
    overlay: bool = False,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PredictResult:
    """Write a palette PNG (pixel value = class id) of each image's own size.

    Args:
        runner: any backend.
        spec: the model's description.
        inputs: image files and folders; what lies below a folder keeps its relative path.
        root: a folder below which all files of `inputs` lie; they too keep their path relative to it.
        output: folder for `NAME.png`, and `NAME.overlay.jpg` with `overlay`.
        overlay: also write the image blended with the classes' colours.
        progress: called with (done, total).

    Raises:
        DataError: an input that does not exist, a folder without images, or two inputs whose masks would
            have the same name, or would overwrite an image.
    """
    targets = mask_files(inputs, output, overlay=overlay, root=root)
    written: dict[Path, Path] = {}
    faults: list[str] = []
    for done, (source, target) in enumerate(targets.items(), start=1):
        try:
            image = read_image(source)
        except DataError as e:
            faults.append(str(e))
        else:
            labels = predict_image(runner, spec, image)
            written[source] = write_bytes(target, mask_png(labels, spec.classes))
            if overlay:
                write_bytes(target.with_suffix(".overlay.jpg"), overlay_jpeg(image, labels, spec.classes))
        if progress is not None:
            progress(done, len(targets))
    return PredictResult(written, tuple(faults))


def predict_image(runner: Runner, spec: ModelSpec, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Image (H, W, 3) uint8 RGB to class ids (H, W) uint8."""
    labels = runner.run(np.stack([resize_image(image, spec.preprocessing)]))[0]
    return restore_mask(labels, image.shape[:2], spec.preprocessing)


def mask_png(labels: NDArray[np.uint8], classes: ClassMap) -> bytes:
    """Class ids (H, W) as an indexed PNG that shows the classes' colours."""
    picture = Image.frombytes("P", (labels.shape[1], labels.shape[0]), labels.tobytes())
    picture.putpalette(classes.palette())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def blend(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: ClassMap, share: float = 0.5
) -> NDArray[np.uint8]:
    """Image (H, W, 3) with `share` of the classes' colours, uint8."""
    mixed = image * (1 - share) + classes.colorize(labels) * share
    return np.round(mixed).astype(np.uint8)


def overlay_jpeg(image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: ClassMap) -> bytes:
    """`blend` as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(blend(image, labels, classes)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def common_folder(files: Sequence[Path]) -> Path:
    """The deepest folder below which all files lie, absolute."""
    return Path(os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files]))  # noqa: PTH100, PTH120


def write_index(output: Path, spec: ModelSpec, masks: Mapping[Path, Path]) -> Path:
    """`<feature>_predictions.csv` in `output`: each image, absolute, and its mask, relative to the file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([spec.image_column, f"{spec.mask_name}_predictions"])
    writer.writerows([image.resolve(), mask.relative_to(output).as_posix()] for image, mask in masks.items())
    return write_text(output / f"{spec.mask_name}_predictions.csv", text.getvalue())


def mask_files(
    inputs: Sequence[Path], output: Path, *, overlay: bool = False, root: Path | None = None
) -> dict[Path, Path]:
    """The file of each image's mask; DataError as in `predict`."""
    targets: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for item in inputs:
        for source in find_images([item]):
            relative = source.relative_to(item) if item.is_dir() else Path(source.name)
            if root is not None:
                relative = Path(os.path.relpath(source, root))
            target = output / relative.with_suffix(".png")
            other = owners.setdefault(target, source)
            if other != source:
                raise DataError(
                    f"{source} and {other} would both be written to {target}; predict them into two folders"
                )
            targets[source] = target
    sources = {source.resolve() for source in targets}
    for target in targets.values():
        for file in (target, target.with_suffix(".overlay.jpg"))[: 1 + overlay]:
            if file.resolve() in sources:
                raise DataError(f"{file}: an image of the input would be overwritten; choose another -o")
    return targets
