"""Encoders by Ludwig's names (`resnet`, `swin_transformer`, ...): each one a line of `family_table.py`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from segdeploy.encoders.family_table import FAMILIES, Family
from segdeploy.encoders.pretrained import PretrainedSection, load_pretrained
from segdeploy.encoders.timm import TimmEncoder
from segdeploy.plugin import EncoderPlugin, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


def section_of(family: Family, base: type[PretrainedSection] = PretrainedSection) -> type[PretrainedSection]:
    """The configuration of a family: the keys of `base`, and the one that chooses a variant."""
    table = "\n".join(f"{variant}: {model}" for variant, model in family.models.items())
    field = Field(default=family.default, description=f"Which variant; behind each stands a model of timm's:\n{table}")
    fields: dict[str, Any] = {family.key: (Literal[tuple(family.models)], field)}
    section: type[PretrainedSection] = create_model(
        f"{family.name}_config", __base__=base, __doc__=f"{family.summary}.", **fields
    )
    return section


def build(family: Family, config: PretrainedSection) -> TimmEncoder:
    """The encoder with random weights."""
    return TimmEncoder(family.models[getattr(config, family.key)])


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register every family of the table."""
    for family in FAMILIES:
        register(
            EncoderPlugin(
                name=family.name,
                summary=family.summary,
                config=section_of(family),
                build=partial(build, family),
                load_pretrained=load_pretrained,
            )
        )
