"""Types of single values that several keys, and the model's description, have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Side = Annotated[int, Field(ge=16, le=16384)]
Policy = Literal["stretch", "letterbox"]
