"""The one base of every value that is read from or written to a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable, strict, and without room for unknown keys.

    Docstrings of attributes become descriptions in the JSON Schema. They are read from the source when a class is made;
    what a deployment host reads a model with does without, so that it starts sooner.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
