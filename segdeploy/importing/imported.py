"""What a reader of another library's model gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.model.spec import ModelSpec


@dataclass(frozen=True)
class Imported:
    """A model in segdeploy's terms: `state` has the names of the `Segmenter` that `spec` describes.

    `notes` are one line each: what was added, left out or assumed.
    """

    spec: ModelSpec
    state: dict[str, Tensor]
    notes: tuple[str, ...]
