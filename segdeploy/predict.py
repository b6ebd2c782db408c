"""Images to mask files; a broken image is named at the end and stops nothing."""

from __future__ import annotations

import csv
import io
import os
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segdeploy.data.images import open_rgb
from segdeploy.data.resize import resize_image, resize_picture, restore_mask
from segdeploy.data.table import find_images
from segdeploy.errors import DataError
from segdeploy.files import write_bytes, write_text
from segdeploy.threads import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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

    def read(source: Path) -> _Opened | DataError:
        try:
            picture = open_rgb(source)
        except DataError as e:
            return e
        image = np.stack([resize_picture(picture, spec.preprocessing)])
        return _Opened(image, (picture.height, picture.width), np.asarray(picture) if overlay else None)

    def labelled() -> Iterator[tuple[_Opened, NDArray[np.uint8], Path] | DataError]:
        with closing(in_order(read, targets)) as opened_files:
            for opened, target in zip(opened_files, targets.values(), strict=True):
                if isinstance(opened, DataError):
                    yield opened
                else:  # a copy: masks are written while the engine runs on, and it may use its buffer again
                    yield opened, runner.run(opened.image)[0].copy(), target

    def write(found: tuple[_Opened, NDArray[np.uint8], Path] | DataError) -> DataError | None:
        if isinstance(found, DataError):
            return found
        opened, labels, target = found
        labels = restore_mask(labels, opened.size, spec.preprocessing)
        write_bytes(target, mask_png(labels, spec.classes))
        if opened.original is not None:
            write_bytes(target.with_suffix(".overlay.jpg"), overlay_jpeg(opened.original, labels, spec.classes))
        return None

    written: dict[Path, Path] = {}
    faults: list[str] = []
    with closing(in_order(write, labelled())) as ends:
        for done, ((source, target), fault) in enumerate(zip(targets.items(), ends, strict=True), start=1):
            if fault is None:
                written[source] = target
            else:
                faults.append(str(fault))
            if progress is not None:
                progress(done, len(targets))
    return PredictResult(written, tuple(faults))


@dataclass(frozen=True, slots=True)
class _Opened:
    """An image on its way: at the network's size (1, height, width, 3), its own (H, W), and itself for overlays."""

    image: NDArray[np.uint8]
    size: tuple[int, int]
    original: NDArray[np.uint8] | None


def predict_image(runner: Runner, spec: ModelSpec, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Image (H, W, 3) uint8 RGB to class ids (H, W) uint8."""
    labels = runner.run(np.stack([resize_image(image, spec.preprocessing)]))[0]
    return restore_mask(labels, image.shape[:2], spec.preprocessing)


def mask_png(labels: NDArray[np.uint8], classes: ClassMap) -> bytes:
    """Class ids (H, W) as an indexed PNG that shows the classes' colours.

    Deflate looks for runs alone, which is what masks are made of: smaller and faster than its default.
    """
    picture = Image.frombytes("P", (labels.shape[1], labels.shape[0]), labels.tobytes())
    picture.putpalette(classes.palette())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_type=zlib.Z_RLE)
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
