"""Numbers within bounds, as the configuration's keys have them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Side = Annotated[int, Field(ge=16, le=16384)]
