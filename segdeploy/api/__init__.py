"""The Python API, in the shape of Ludwig's `LudwigModel`."""

from segdeploy.api.model import SegModel
from segdeploy.api.results import PreprocessedDataset, TrainingResults, TrainingStats

__all__ = ["PreprocessedDataset", "SegModel", "TrainingResults", "TrainingStats"]
