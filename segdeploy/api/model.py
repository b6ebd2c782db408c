"""SegModel: train, evaluate, predict and export from Python, called as Ludwig's `LudwigModel` is."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy import run_folder as place
from segdeploy.api.fitted import FittedModel
from segdeploy.api.results import PreprocessedDataset, TrainingResults, TrainingStats
from segdeploy.api.session import refuse
from segdeploy.arguments import check_data_format
from segdeploy.bundle import open_model
from segdeploy.config.load import config_from_dict, read_run_config
from segdeploy.data.input_size import settle_input_size
from segdeploy.data.table import PARTS, Tables
from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from segdeploy.api.session import OnEpoch
    from segdeploy.config.schema import RunConfig
    from segdeploy.data.rows import Table

log = logging.getLogger(__name__)


class SegModel(FittedModel):
    """A segmentation model: what it is to be (a configuration), and, once trained or loaded, its weights."""

    def train(
        self,
        dataset: Table | None = None,
        training_set: Table | None = None,
        validation_set: Table | None = None,
        test_set: Table | None = None,
        training_set_metadata: None = None,
        data_format: str | None = None,
        experiment_name: str = "api_experiment",
        model_name: str = "run",
        model_resume_path: str | os.PathLike[str] | None = None,
        skip_save_training_description: bool = False,
        skip_save_training_statistics: bool = False,
        skip_save_model: bool = False,
        skip_save_progress: bool = False,
        skip_save_log: bool = False,
        skip_save_processed_input: bool = False,
        output_directory: str | os.PathLike[str] = "results",
        random_seed: int | None = None,
        callbacks: Sequence[OnEpoch] | None = None,
        *,
        skip_save_pictures: bool = False,
    ) -> TrainingResults:
        """Train into `output_directory/experiment_name_model_name` (with _0, _1, ... where that is taken).

        A model that was loaded or trained before goes on from its weights, as in Ludwig.

        Args:
            dataset: one table, split as the configuration says; or
            training_set, validation_set, test_set: a table for each part.
            training_set_metadata: None; classes come from the configuration, with `num_classes` from the masks.
            data_format: tables are read by what they are; another word than that or "auto" is refused.
            experiment_name, model_name: the run folder's name.
            model_resume_path: a run that stopped; it goes on with its own configuration.
            skip_save_training_description: no description.json; resuming cannot tell whether the data are the same.
            skip_save_training_statistics: no training_statistics.json, metrics.jsonl, best_epoch.json, training.html.
            skip_save_model: the weights stay with this object and are gone with it.
            skip_save_progress: no checkpoint; the run cannot be resumed.
            skip_save_log: nothing for TensorBoard.
            skip_save_processed_input: no effect; processed input is never saved.
            output_directory: folder for runs.
            random_seed: in place of `trainer.seed`; with `model_resume_path` the one that the run began with.
            callbacks: as in the constructor, for this call.
            skip_save_pictures: no validation images in training.html.

        Raises:
            SegdeployError: see `segdeploy.train.loop.train`.
        """
        refuse(training_set_metadata=training_set_metadata)
        named = (dataset, training_set, validation_set, test_set)
        check_data_format(data_format, *named)
        tables = Tables(dataset=dataset, training=training_set, validation=validation_set, test=test_set)
        skip = place.Skip(
            description=skip_save_training_description,
            statistics=skip_save_training_statistics,
            progress=skip_save_progress or skip_save_model,
            log=skip_save_log,
            pictures=skip_save_pictures,
        )
        on_epoch = self._session.on_epoch(callbacks)
        with self._session.training():
            from segdeploy.train import loop

            if model_resume_path is not None:
                run, given = Path(model_resume_path), tables if any(t is not None for t in named) else None
                self._check_same_config(run, random_seed)
                result = loop.resume(run, tables=given, device=self._session.device, skip=skip, on_epoch=on_epoch)
            else:
                temporary = tempfile.TemporaryDirectory(prefix="segdeploy-") if skip_save_model else None
                result = loop.train(
                    self._seeded(random_seed),
                    tables,
                    Path(output_directory),
                    name=f"{experiment_name}_{model_name}",
                    device=self._session.device,
                    start_from=self._model,
                    skip=skip,
                    model_folder=Path(temporary.name) if temporary else None,
                    on_epoch=on_epoch,
                )
                self._temporary = temporary
        self._run, self._model = result.run, result.model
        self._config = read_run_config(result.model)
        parts = result.parts
        data = PreprocessedDataset(parts["training"], parts["validation"], parts["test"], result.metadata)
        return TrainingResults(TrainingStats(result.statistics), data, str(result.run))

    def experiment(
        self,
        dataset: Table | None = None,
        training_set: Table | None = None,
        validation_set: Table | None = None,
        test_set: Table | None = None,
        *,
        experiment_name: str = "experiment",
        model_name: str = "run",
        eval_split: str = "test",
        skip_save_unprocessed_output: bool = False,
        skip_save_predictions: bool = False,
        skip_save_eval_stats: bool = False,
        skip_collect_predictions: bool = False,
        skip_collect_overall_stats: bool = False,
        **training: Any,
    ) -> tuple[dict[str, Any] | None, TrainingStats, PreprocessedDataset, str]:
        """Train, then evaluate the run's own `eval_split` into the run folder.

        Args:
            dataset, training_set, validation_set, test_set, experiment_name, model_name: as in `train`.
            eval_split: "training", "validation" or "test".
            skip_save_predictions, skip_save_eval_stats, skip_save_unprocessed_output: as in `evaluate`.
            skip_collect_predictions, skip_collect_overall_stats: no effect; predictions are not returned here.
            training: further arguments of `train`.

        Returns:
            Statistics (None, with a line in the log, where the part is empty), training statistics, data, run folder.

        Raises:
            ConfigError: no such part; SegdeployError: see `train`.
        """
        if eval_split not in PARTS:
            raise ConfigError(f"eval_split: expected one of {', '.join(PARTS)}, got {eval_split!r}")
        stats, data, run = self.train(
            dataset,
            training_set,
            validation_set,
            test_set,
            experiment_name=experiment_name,
            model_name=model_name,
            **training,
        )
        found = None
        if getattr(data, f"{eval_split}_set", None) == []:
            log.warning("%s: nothing to evaluate, the %s part is empty", run, eval_split)
        else:
            found, _, _ = self.evaluate(
                split=eval_split,
                skip_save_predictions=skip_save_predictions,
                skip_save_eval_stats=skip_save_eval_stats,
                output_directory=run,
            )
        return found, stats, data, run

    def preprocess(
        self,
        dataset: Table | None = None,
        training_set: Table | None = None,
        validation_set: Table | None = None,
        test_set: Table | None = None,
        data_format: str | None = None,
        random_seed: int | None = None,
    ) -> PreprocessedDataset:
        """Open and check every image and mask, as `train` does first; nothing is written.

        Raises:
            DataError: one line for each file that cannot be used.
        """
        check_data_format(data_format, dataset, training_set, validation_set, test_set)
        tables = Tables(dataset=dataset, training=training_set, validation=validation_set, test=test_set)
        config = self._seeded(random_seed)
        with self._session.training():
            from segdeploy.train import loop
            from segdeploy.train.record import training_set_metadata

            parts, report = loop.checked_parts(config, tables)
            metadata = training_set_metadata(settle_input_size(config, report.sizes), report)
        return PreprocessedDataset(parts["training"], parts["validation"], parts["test"], metadata)

    @staticmethod
    def load(
        model_dir: str | os.PathLike[str],
        logging_level: int = logging.ERROR,
        backend: str | Mapping[str, Any] | None = None,
        gpus: int | str | Sequence[int] | None = None,
        gpu_memory_limit: float | None = None,
        allow_parallel_threads: bool = True,
        callbacks: Sequence[OnEpoch] | None = None,
    ) -> SegModel:
        """Open a run, its model folder, a bundle or an ONNX file.

        Raises:
            ModelError: none of these.
        """
        path = Path(model_dir)
        opened = open_model(path)
        model = SegModel(
            read_run_config(path), logging_level, backend, gpus, gpu_memory_limit, allow_parallel_threads, callbacks
        )
        model._run = place.find_run(path)
        model._model = path if path.is_file() else opened.path
        return model

    def _seeded(self, seed: int | None) -> RunConfig:
        config = self._known_config()
        if seed is None:
            return config
        return config_from_dict(config.model_dump(mode="json"), "random_seed", [f"trainer.seed={seed}"])

    def _check_same_config(self, run: Path, seed: int | None) -> None:
        known = read_run_config(run)
        if known is not None and self._config is not None and not _same(self._seeded(seed), known):
            raise ConfigError(f"{run}: goes on with its own configuration, which is another; use SegModel.load({run})")


def _same(config: RunConfig, known: RunConfig) -> bool:
    """Whether a run's configuration is this one; what was left to the images or to the program may be anything."""
    preprocessing, trainer = config.image.preprocessing, config.trainer
    free = {side for side in ("height", "width") if getattr(preprocessing, side) is None}
    chosen = {key for key in ("batch_size", "learning_rate") if getattr(trainer, key) == "auto"}
    left, right = (c.image.preprocessing.model_dump(exclude=free) for c in (config, known))
    mine, theirs = (_trainer(c, chosen) for c in (config, known))
    image = known.image.model_copy(update={"preprocessing": preprocessing})
    alike = known.model_copy(update={"input_features": (image,), "trainer": trainer})
    return left == right and mine == theirs and alike == config


def _trainer(config: RunConfig, chosen: set[str]) -> list[object]:
    """What the trainer section means; a key of the optimiser that is null means the rule's own default."""
    rule = config.trainer.optimizer
    scales = (rule.type, rule.weight_decay, rule.layer_decay, rule.encoder_lr_scale)
    return [config.trainer.model_dump(exclude={*chosen, "optimizer"}), scales, rule.settings]
