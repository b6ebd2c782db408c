"""Types of single values that several keys, and the model's description, have."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Side = Annotated[int, Field(ge=16, le=16384)]
Policy = Literal["stretch", "letterbox"]


def _one_or_more(value: Any) -> Any:
    # After a function pydantic knows no longer that a list came from JSON, and takes it for no tuple.
    return (value,) if type(value) is int else tuple(value) if isinstance(value, list) else value


Counts = Annotated[tuple[PositiveInt, ...], Field(min_length=1), BeforeValidator(_one_or_more)]
"""Whole numbers from 1; one may stand without a list."""


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"expected a regular expression: {e}") from e
    return value


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
"""A regular expression."""
