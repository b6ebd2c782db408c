"""What a row's labels are worth: valid class ids, scores on a whole table, agreement image by image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segdeploy.data.resize import restore_mask
from segdeploy.data.table import read_table
from segdeploy.errors import ModelError
from segdeploy.evaluate import evaluate
from segdeploy.metrics import Scores, confusion_matrix, none_if_nan
from segdeploy.runtime.runner import Runner

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle
    from segdeploy.evaluate import At, Example


_ALIKE = 0.995
"""Share of pixels as in the reference from which one class everywhere is no sign of NaN; exports have to reach it."""


class CheckedRunner(Runner):
    """A runner whose labels are looked at: shape, type and classes."""

    def __init__(self, runner: Runner, num_classes: int) -> None:
        self.runner, self.num_classes = runner, num_classes

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`; ModelError where the labels are none."""
        labels = self.runner.run(image)
        if labels.shape != image.shape[:3] or labels.dtype != np.uint8:
            raise ModelError(
                f"expected labels uint8 {image.shape[:3]}, but it gave {labels.dtype} {tuple(labels.shape)}"
            )
        if (largest := int(labels.max())) >= self.num_classes:
            raise ModelError(f"its labels hold {largest}, which is no class: expected 0 to {self.num_classes - 1}")
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return self.runner.describe()


def at_size(bundle: Bundle, height: int, width: int) -> Bundle:
    """The bundle, with images of another size than the model was trained on."""
    preprocessing = bundle.spec.preprocessing.model_copy(update={"height": height, "width": width})
    return replace(bundle, spec=bundle.spec.model_copy(update={"preprocessing": preprocessing}))


def score(runner: Runner, bundle: Bundle, table: Path, at: At, labels: Path, reference: Path | None) -> dict[str, Any]:
    """Confusion matrix, boundaries, and image by image the mean IoU and the share of labels as in `reference`.

    Args:
        runner: any backend.
        bundle: its model.
        table: all of it is scored.
        at: see `segdeploy.evaluate`.
        labels: folder for the label maps at the network's size, NNNNNN.png in the table's order.
        reference: such a folder of another row.

    Raises:
        ModelError: labels that are no classes, or the same class for every pixel where the logits are NaN.
    """
    spec = bundle.spec
    samples = read_table(table, spec.image_column, spec.mask_column)
    scores: list[float | None] = []
    agreement: list[float] = []
    seen: set[int] = set()
    others: set[int] = set()

    def keep(example: Example, found: NDArray[np.uint8]) -> None:
        name = f"{len(scores):06d}.png"
        Image.fromarray(found).save(labels / name, compress_level=1)
        own_size = restore_mask(found, example.mask.shape, spec.preprocessing)
        scores.append(none_if_nan(Scores(confusion_matrix(example.mask, own_size, len(spec.classes))).mean_iou))
        seen.update(np.unique(found).tolist())
        if reference is not None:
            told = np.asarray(Image.open(reference / name))
            others.update(np.unique(told).tolist())
            agreement.append(float((found == told).mean()))

    checked = CheckedRunner(runner, len(spec.classes))
    result = evaluate(checked, samples, spec, at=at, on_labels=keep)
    # A stray pixel of a second class in the reference makes no NaN of one that says the same of all the others.
    differs = len(others) > 1 and float(np.mean(agreement)) < _ALIKE
    if len(seen) == 1 and (differs if reference is not None else not _is_finite(bundle)):
        raise ModelError(
            f"every pixel of every image got the class {spec.classes.names[seen.pop()]!r}, as logits that are NaN give"
        )
    boundary = result.scores.boundary
    return {
        "confusion": result.scores.confusion.tolist(),
        "boundary": boundary.tolist() if boundary is not None else None,
        "images": result.images,
        "image_iou": scores,
        "image_agreement": agreement if reference is not None else [1.0] * len(scores),
    }


def _is_finite(bundle: Bundle) -> bool:
    """Whether the weights hold no NaN and no infinity; where nobody can read them, they get the benefit."""
    file = bundle.find("weights")
    try:
        from segdeploy.checkpoint import is_finite
    except ImportError:
        return True
    return file is None or is_finite(bundle.path / file.file)
