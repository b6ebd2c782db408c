"""Predictions in memory and in files: class ids and, as Ludwig gives them, colours."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.data.images import read_image
from segdeploy.data.resize import resize_image, restore_mask
from segdeploy.files import replacing, write_bytes
from segdeploy.predict import common_folder, mask_files, mask_png, write_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.data.table import Sample
    from segdeploy.model.spec import ModelSpec
    from segdeploy.runtime.runner import Runner

log = logging.getLogger(__name__)


def predict_samples(
    runner: Runner,
    spec: ModelSpec,
    samples: Sequence[Sample],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[NDArray[np.uint8]]:
    """Class ids (H, W) uint8 of each sample, at its image's own size. Raises DataError for a broken image."""
    labels: list[NDArray[np.uint8]] = []
    for start in range(0, len(samples), batch_size):
        images = [read_image(s.image) for s in samples[start : start + batch_size]]
        found = runner.run(np.stack([resize_image(image, spec.preprocessing) for image in images]))
        labels += [
            restore_mask(ids, image.shape[:2], spec.preprocessing) for ids, image in zip(found, images, strict=True)
        ]
        progress(len(labels), len(samples))
    return labels


def as_columns(spec: ModelSpec, labels: Sequence[NDArray[np.uint8]]) -> dict[str, list[NDArray[np.uint8]]]:
    """Two columns: `<feature>_predictions`, colours (3, H, W), and `<feature>_class_ids` (H, W), both uint8."""
    colors = [np.ascontiguousarray(spec.classes.colorize(ids).transpose(2, 0, 1)) for ids in labels]
    return {f"{spec.mask_name}_predictions": colors, f"{spec.mask_name}_class_ids": list(labels)}


def as_frame(columns: dict[str, list[NDArray[np.uint8]]], return_type: Any = None) -> Any:
    """A DataFrame where pandas is installed and `return_type` is not dict, else the columns themselves."""
    if return_type in (dict, "dict") or importlib.util.find_spec("pandas") is None:
        return columns
    pd: Any = importlib.import_module("pandas")
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def save_predictions(
    folder: Path, spec: ModelSpec, samples: Sequence[Sample], labels: Sequence[NDArray[np.uint8]]
) -> None:
    """Write `predictions.parquet`, the masks as PNG, and `<feature>_predictions.csv`, which names them.

    Without pyarrow the first is left out, and the log says so.

    Raises:
        DataError: two images whose masks would have the same name.
    """
    images = [sample.image for sample in samples]
    masks = mask_files(images, folder / f"{spec.mask_name}_predictions", root=common_folder(images))
    for image, ids in zip(images, labels, strict=True):
        write_bytes(masks[image], mask_png(ids, spec.classes))
    write_index(folder, spec, masks)
    if importlib.util.find_spec("pyarrow") is None:
        log.warning("%s: predictions.parquet needs pyarrow, which is not installed; the masks are there", folder)
        return
    _write_parquet(folder / "predictions.parquet", spec, labels)


def _write_parquet(path: Path, spec: ModelSpec, labels: Sequence[NDArray[np.uint8]]) -> None:
    """`as_columns` as a table, one image at a time: colours and lists of a whole test set would fill the memory."""
    pyarrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")

    def row(values: NDArray[np.uint8]) -> Any:
        # Parquet has no arrays of two dimensions; lists of lists keep each image's own size.
        lists = pyarrow.array(values.ravel())
        for length in reversed(values.shape):
            offsets = np.arange(0, len(lists) + 1, length, dtype=np.int32)
            lists = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), lists)
        return lists

    columns = {f"{spec.mask_name}_predictions": 3, f"{spec.mask_name}_class_ids": 2}
    kinds = {name: row(np.zeros([1] * depth, np.uint8)).type for name, depth in columns.items()}
    with replacing(path) as part, parquet.ParquetWriter(part, pyarrow.schema(kinds.items())) as writer:
        for ids in labels:
            found = as_columns(spec, [ids])
            writer.write_table(pyarrow.table({name: row(values) for name, (values,) in found.items()}))
