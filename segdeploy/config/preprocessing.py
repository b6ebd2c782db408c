"""The section `preprocessing` at the top: how a table is cut, and where decoded samples are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveFloat, model_validator

from segdeploy.config.bounds import Fraction
from segdeploy.frozen import Frozen


def _refuse_datetime(value: Any) -> Any:
    if value == "datetime":
        raise ValueError("datetime is not supported; write each row's part into a column and use `type: fixed`")
    return value


class Split(Frozen):
    """How one table is cut into training, validation and test."""

    type: Annotated[Literal["random", "fixed", "stratify", "hash"], BeforeValidator(_refuse_datetime)] = "random"
    """random: by `probabilities`. fixed: by the column, with 0/1/2 or training/validation/test. stratify: each value of
    the column by `probabilities`. hash: by the cell's CRC-32, so that a row keeps its part when others are added."""
    column: str | None = None
    """Column of the table; null: `split` for fixed, the image's path as it is written for hash."""
    probabilities: tuple[Fraction, Fraction, Fraction] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test; together 1."""

    @model_validator(mode="after")
    def _whole(self) -> Split:
        if abs(sum(self.probabilities) - 1) > 1e-6:
            raise ValueError(f"probabilities add up to {sum(self.probabilities):g}, expected 1")
        if self.probabilities[0] == 0:
            raise ValueError("probabilities leave nothing for training; expected the first to be above 0")
        if self.type == "stratify" and self.column is None:
            raise ValueError("stratify needs `column`, the column whose values every part shall have")
        if self.type == "random" and self.column is not None:
            raise ValueError("random takes no `column`; expected fixed, stratify or hash with it")
        return self


class Cache(Frozen):
    """Where the training samples are kept once they are decoded and resized."""

    mode: Literal["auto", "memory", "disk", "none"] = "auto"
    """memory: at most half of what is free. disk: in a file that goes with the process, at most half of what is free
    there. auto: the first of them that holds everything, else the one that holds more. none: decode in each epoch."""
    directory: str | None = None
    """Folder of the file; null: the system's folder for temporary files, or /var/tmp where that lies in memory."""
    max_gb: PositiveFloat | None = None
    """At most this much, 10^9 bytes; null: no limit of its own in memory, 64 GiB on disk."""


Allowable = Literal[
    "absent-class", "alpha", "binary-mask", "conflict", "copy", "duplicate-row", "empty-mask", "flat-masks", "leak",
    "mostly-ignored", "off-by-one", "one-class", "orientation", "pages", "palette", "repeated", "shared-mask", "stems",
    "swallowed",
]  # fmt: skip
"""Findings about a data set that a user may know and accept."""


class Preprocessing(Frozen):
    """What happens to the table as a whole."""

    split: Split | None = None
    """null: fixed where the table has a `split` column, else random."""
    allow: tuple[Allowable, ...] = ()
    """Findings of the label check (`segdeploy inspect` shows them) that are known and accepted, such as `leak`."""
    cache: Cache = Cache()
    """Where decoded samples are kept."""
