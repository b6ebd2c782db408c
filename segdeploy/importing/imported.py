"""What every reader of a foreign format gives: a description and the weights that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdeploy.model.segmenter import Segmenter, build

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.model.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Imported:
    """A network as segdeploy rebuilds it: `state` holds every tensor of `build(spec)` under its name, on the CPU."""

    spec: ModelSpec
    state: dict[str, Tensor]

    def segmenter(self) -> Segmenter:
        """The network with its weights, for inference."""
        segmenter = build(self.spec)
        segmenter.load_state_dict(self.state)
        return segmenter.eval()
