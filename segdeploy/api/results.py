"""What the API's calls return: Ludwig's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from segdeploy.data.table import Sample


class EvaluationFrequency(NamedTuple):
    """How often there is a value in the statistics: every `frequency` `period`s."""

    frequency: float = 1.0
    period: str = "epoch"


class TrainingStats(dict[str, Any]):
    """`stats["training" | "validation" | "test"][feature][metric]`: a list, one value per epoch.

    `[...]["combined"]["loss"]` stands beside the feature. The test part is scored once, at the end, with the best
    weights, so its lists hold one value; it is empty without a test part.
    """

    evaluation_frequency = EvaluationFrequency()

    @property
    def training(self) -> dict[str, Any]:
        """Statistics of the training part."""
        return self["training"]  # type: ignore[no-any-return]

    @property
    def validation(self) -> dict[str, Any]:
        """Statistics of the validation part."""
        return self["validation"]  # type: ignore[no-any-return]

    @property
    def test(self) -> dict[str, Any]:
        """Statistics of the test part."""
        return self["test"]  # type: ignore[no-any-return]


class PreprocessedDataset(NamedTuple):
    """The samples of each part, every file of which was opened and checked, and what the training part holds."""

    training_set: list[Sample]
    validation_set: list[Sample]
    test_set: list[Sample]
    training_set_metadata: dict[str, Any]


class TrainingResults(NamedTuple):
    """What `train` returns; the run folder is `output_directory`."""

    train_stats: TrainingStats
    preprocessed_data: PreprocessedDataset
    output_directory: str
