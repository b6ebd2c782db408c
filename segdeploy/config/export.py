"""The `export` section: which graphs are written, and what each must keep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from segdeploy.config.bounds import Fraction, NonNegative
from segdeploy.frozen import Frozen

Precision = Literal["fp32", "fp16", "int8"]


class Limits(Frozen):
    """What a graph of fewer bits must keep on the --verify table."""

    max_miou_drop: NonNegative = 0.002
    """Largest loss of mean IoU against torch (0.01 = one point)."""
    min_agreement: Fraction = 0.995
    """Smallest share of pixels with the same class as torch."""


class Quantization(Limits):
    """How INT8 graphs are made, and what they must keep."""

    max_miou_drop: NonNegative = 0.01
    min_agreement: Fraction = 0.9
    method: Literal["minmax", "entropy", "percentile"] = "percentile"
    """How the range of a tensor is chosen from what it holds on the calibration images."""
    leave_out_below: Fraction = 0.98
    """Share of labels on a few calibration images that must stay as they are; the layers that cost most stay float
    until it is kept. 0 leaves none out."""


class Export(Frozen):
    """Which graphs an export writes, and the limits that each must keep on the --verify table."""

    precisions: tuple[Precision, ...] = ("fp32",)
    """Of the graphs; fp32 is always among them."""
    max_miou_drop: NonNegative = 0.0005
    """Largest loss of mean IoU of the FP32 graph against torch (0.01 = one point)."""
    min_agreement: Fraction = 0.999
    """Smallest share of pixels with the same class as torch, of the FP32 graph."""
    verify_batches: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 3)
    """Batch sizes at which the FP32 graph is compared; others are compared at the first."""
    fp16: Limits = Limits()
    """Limits of the FP16 graph."""
    int8: Quantization = Quantization()
    """INT8 graphs."""
    calibration_images: PositiveInt = 64
    """Images of the training table on which ranges are measured, for FP16 and INT8."""

    def limits(self, precision: str) -> Limits:
        """What a graph of that precision must keep."""
        if precision == "fp32":
            return Limits(max_miou_drop=self.max_miou_drop, min_agreement=self.min_agreement)
        return self.fp16 if precision == "fp16" else self.int8
