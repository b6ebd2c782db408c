"""The imported network beside the original, where the library that wrote it is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from segdeploy.encoders.hub_files import read_weights
from segdeploy.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from segdeploy.importing.source import Source
    from segdeploy.model.segmenter import Segmenter

LIMIT = 1e-3
"""Of the largest difference, as a share of the largest logit; rounding stays far below."""
ROUNDING = 1e-6
"""The difference that is always allowed, where all logits are about zero."""
_PACKAGES = {"segmentation_models_pytorch": "segmentation-models-pytorch", "transformers": "transformers"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`difference`: the largest of all logits on one image of noise; `largest`: the largest logit."""

    library: str
    version: str
    difference: float
    largest: float


def package_of(source: Source) -> str:
    """What pip calls the library that wrote the folder."""
    return _PACKAGES[source.library]


def compare(source: Source, segmenter: Segmenter, size: tuple[int, int]) -> Comparison | None:
    """One forward pass of both networks on an image of `size` (height, width); None without the library.

    Raises:
        ModelError: the original cannot be run, or gives other logits.
    """
    if importlib.util.find_spec(source.library) is None:
        return None
    package = package_of(source)
    version = importlib.metadata.version(package)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    run = _run_smp if source.library == "segmentation_models_pytorch" else _run_transformers
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = run(source, image)
    except Exception as e:  # another library's errors have no common base
        first = (str(e).splitlines() or [""])[0]
        raise ModelError(
            f"{source.folder}: {package} {version} itself cannot run it: {type(e).__name__}: {first}"
        ) from e
    with torch.inference_mode():
        ours = segmenter(image)[:, -theirs.shape[1] :]  # of two classes for one logit, the second
    found = Comparison(package, version, float((ours - theirs).abs().max()), float(theirs.abs().max()))
    if not found.difference <= LIMIT * found.largest + ROUNDING:
        raise ModelError(
            f"{source.folder}: the logits differ by {found.difference:.2g} from those of {package} {version} "
            f"(the largest is {found.largest:.2g}); bring the network with --factory, and please report this folder"
        )
    return found


def _run_smp(source: Source, image: Tensor) -> Tensor:
    library: Any = importlib.import_module(source.library)
    options: dict[str, Any] = {k: v for k, v in source.content.items() if not k.startswith("_")}
    # Without its weights nothing is downloaded; without its activation the result is logits.
    options |= {"encoder_weights": None, "activation": None, "aux_params": None}
    model = getattr(library, source.content["_model_class"])(**options)
    model.load_state_dict(
        {k: v for k, v in read_weights(source.folder).items() if not k.startswith("classification_head.")}
    )
    logits: Tensor = model.eval()(image)
    return logits


def _run_transformers(source: Source, image: Tensor) -> Tensor:
    library: Any = importlib.import_module(source.library)
    with _quiet(library.utils.logging):
        model = library.SegformerForSemanticSegmentation.from_pretrained(source.folder, local_files_only=True)
    logits: Tensor = model.eval().float()(image).logits
    return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)


@contextmanager
def _quiet(said: Any) -> Iterator[None]:
    """No progress bars and no warnings of transformers (`said`: its utils.logging) inside; errors are raised."""
    bars, verbosity = said.is_progress_bar_enabled(), said.get_verbosity()
    said.disable_progress_bar()
    said.set_verbosity_error()
    try:
        yield
    finally:
        said.set_verbosity(verbosity)
        if bars:
            said.enable_progress_bar()
