"""ModelSpec: data, and only data, that says how to rebuild a model and how to feed it. No torch here.

The same JSON lies beside the weights, in the bundle, in the ONNX file's metadata and beside an engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from segdeploy.classes import ClassMap
from segdeploy.config.bounds import Fraction, Policy
from segdeploy.errors import ModelError
from segdeploy.frozen import Frozen


class Part(Frozen, use_attribute_docstrings=False):
    """An encoder or decoder: the plugin's name, its configuration, and the package it came from."""

    name: str
    config: dict[str, Any]
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


class Preprocessing(Frozen, use_attribute_docstrings=False):
    """From a picture to the graph's input: resize on the host, the rest inside the graph."""

    height: PositiveInt
    width: PositiveInt
    resize: Policy
    mean: tuple[Fraction, Fraction, Fraction]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    color_order: Literal["RGB"] = "RGB"


class Head(Frozen, use_attribute_docstrings=False):
    """From the decoder's map to one logit per class, and from there to the image's size."""

    kind: Literal["conv", "none"] = "conv"
    """conv: a convolution with bias; none: the decoder's map holds logits already (imported networks)."""
    kernel_size: Literal[1, 3] = 1
    align_corners: bool = False
    """Of the bilinear upsampling; true only where an imported network was trained so."""


class ModelSpec(Frozen, use_attribute_docstrings=False):
    """Everything but the weights."""

    schema_version: Literal[1] = 1
    encoder: Part
    decoder: Part
    head: Head = Head()
    classes: ClassMap
    preprocessing: Preprocessing
    image_column: str = "image"
    mask_column: str = "mask"
    mask_name: Annotated[str, Field(pattern=r"^[\w-]+$", max_length=64)] = "mask"
    """The output feature's name, which statistics, predictions and their files go by; often the column's too."""
    output: Literal["mask"] = "mask"

    def to_json(self) -> str:
        """Indented JSON that `parse_spec` reads back to an equal value."""
        return self.model_dump_json(indent=2)


def parse_spec(text: str | bytes, name: str) -> ModelSpec:
    """JSON to a ModelSpec; `name` stands for the file in the ModelError that bad input raises."""
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ModelError(f"{name}: not a model description of this segdeploy: {place}: {first['msg']}") from e
