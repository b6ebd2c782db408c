"""A model with weights: evaluate, predict, save and export from Python, called as Ludwig's `LudwigModel` is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy import run_folder as place
from segdeploy.api.predictions import as_columns, as_frame, predict_samples, save_predictions
from segdeploy.api.session import read_config, refuse, start_session
from segdeploy.arguments import check_data_format
from segdeploy.bundle import open_model
from segdeploy.data.resize import restore_mask
from segdeploy.data.select import select_samples
from segdeploy.errors import ConfigError, ModelError
from segdeploy.files import write_json, write_text
from segdeploy.progress import progress
from segdeploy.train.score import score

if TYPE_CHECKING:
    import os
    import tempfile
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from segdeploy.api.session import OnEpoch
    from segdeploy.config.schema import RunConfig
    from segdeploy.data.rows import Table
    from segdeploy.evaluate import Example

log = logging.getLogger(__name__)


class FittedModel:
    """What a model can do once it has weights; `SegModel` adds how it comes by them.

    Args:
        config: a YAML file, a dict of the same shape, or a checked configuration.
        logging_level: level of the logger "segdeploy"; progress bars are shown at INFO (20) and below.
        backend: what runs the model (torch, onnxruntime, ...); None and Ludwig's "local": the first that can.
        gpus: None: a GPU where there is one. -1: none. A number: that one.
        gpu_memory_limit: largest share of the GPU's memory that torch may take, 0 to 1.
        allow_parallel_threads: False: one CPU thread.
        callbacks: functions that are called with the numbers of each epoch, a dict.
        lenient: drop unknown keys of the configuration with a warning, as Ludwig does, instead of refusing them.

    Raises:
        ConfigError: all mistakes of the configuration.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | RunConfig | None,
        logging_level: int = logging.ERROR,
        backend: str | Mapping[str, Any] | None = None,
        gpus: int | str | Sequence[int] | None = None,
        gpu_memory_limit: float | None = None,
        allow_parallel_threads: bool = True,
        callbacks: Sequence[OnEpoch] | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        self._session = start_session(logging_level, backend, gpus, gpu_memory_limit, allow_parallel_threads, callbacks)
        self._config = read_config(config, lenient)
        self._run: Path | None = None
        self._model: Path | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None  # holds a model that was not to be saved

    @property
    def config(self) -> dict[str, Any] | None:
        """The configuration with all defaults filled in; None for a model that was loaded without one."""
        return None if self._config is None else self._config.model_dump(mode="json")

    def evaluate(
        self,
        dataset: Table | None = None,
        data_format: str | None = None,
        split: str = "full",
        batch_size: int | None = None,
        skip_save_unprocessed_output: bool = True,
        skip_save_predictions: bool = True,
        skip_save_eval_stats: bool = True,
        collect_predictions: bool = False,
        collect_overall_stats: bool = False,
        output_directory: str | os.PathLike[str] = "results",
        return_type: Any = None,
    ) -> tuple[dict[str, Any], Any, str]:
        """Score the model: statistics, predictions (None unless collected), `output_directory`.

        Args:
            dataset: a table with masks; None: the run's own part that `split` names.
            data_format: see `train`.
            split: "full", or the rows of the training, validation or test part.
            batch_size: images per call of the network; None: as the configuration says.
            skip_save_unprocessed_output: no effect; logits are not kept.
            skip_save_predictions: False: write predictions.parquet (where pyarrow is installed), masks as PNG and
                `<feature>_predictions.csv`.
            skip_save_eval_stats: False: write test_statistics.json.
            collect_predictions: whether to return them too; see `predict`.
            collect_overall_stats: no effect; they are always there.
            output_directory: for what is saved.
            return_type: dict: predictions as a dict of lists, even where pandas is installed.

        Returns:
            `stats[feature]["mean_iou"]` and more (see `segdeploy.metrics.Scores.to_dict`), and, where torch runs a
            run's weights, `stats[feature]["loss"]` and `stats["combined"]["loss"]`.

        Raises:
            DataError: no such table or part, or a file that is broken.
        """
        check_data_format(data_format, dataset)
        opened = open_model(self._weights_path())
        samples = select_samples(opened.spec, self._run, self._config, dataset, split)
        collect = collect_predictions or not skip_save_predictions
        labels: list[NDArray[np.uint8]] = []

        def keep(example: Example, ids: NDArray[np.uint8]) -> None:
            labels.append(restore_mask(ids, example.mask.shape, opened.spec.preprocessing))

        with self._session.running(opened) as runner, progress("evaluating") as step:
            size = batch_size or self._batch_size()
            result = score(opened, runner, samples, batch_size=size, progress=step, on_labels=keep if collect else None)
        stats = result.to_dict(opened.spec)
        if result.loss is not None:
            stats = {"combined": {"loss": stats[opened.spec.mask_name]["loss"]}} | stats
        if not skip_save_eval_stats:
            write_json(Path(output_directory) / place.TEST_STATISTICS_FILE, stats)
        if not skip_save_predictions:
            save_predictions(Path(output_directory), opened.spec, samples, labels)
        predictions = as_frame(as_columns(opened.spec, labels), return_type) if collect_predictions else None
        return stats, predictions, str(output_directory)

    def predict(
        self,
        dataset: Table | None = None,
        data_format: str | None = None,
        split: str = "full",
        batch_size: int | None = None,
        generation_config: None = None,
        skip_save_unprocessed_output: bool = True,
        skip_save_predictions: bool = True,
        output_directory: str | os.PathLike[str] = "results",
        return_type: Any = None,
        callbacks: Sequence[OnEpoch] | None = None,
    ) -> tuple[Any, str]:
        """Predict the images of a table, which needs no masks: predictions, `output_directory`.

        Arguments as in `evaluate`; `generation_config` must be None, `callbacks` are not called.

        Returns:
            A DataFrame (without pandas a dict of lists) with a row per sample and two columns of uint8 arrays at
            each image's own size: `<feature>_predictions`, RGB colours (3, H, W), and `<feature>_class_ids` (H, W).

        Raises:
            DataError: no such table or part, or an image that is broken.
        """
        refuse(generation_config=generation_config)
        check_data_format(data_format, dataset)
        opened = open_model(self._weights_path())
        samples = select_samples(opened.spec, self._run, self._config, dataset, split, masks=False)
        with self._session.running(opened) as runner, progress("predicting") as step:
            labels = predict_samples(runner, opened.spec, samples, batch_size or self._batch_size(), step)
        if not skip_save_predictions:
            save_predictions(Path(output_directory), opened.spec, samples, labels)
        return as_frame(as_columns(opened.spec, labels), return_type), str(output_directory)

    def save(self, save_path: str | os.PathLike[str]) -> None:
        """Write the model folder, for `load`, `segdeploy predict` and all else that takes a run."""
        self.export_model(save_path, "safetensors")

    def save_config(self, save_path: str | os.PathLike[str]) -> None:
        """Write model_hyperparameters.json into the folder `save_path`."""
        config = self._known_config()
        write_text(Path(save_path) / place.CONFIG_FILE, config.model_dump_json(indent=2) + "\n")

    def export_model(
        self,
        save_path: str | os.PathLike[str],
        format: str = "safetensors",  # noqa: A002  (Ludwig's word)
        sample_input: Any = None,
        *,
        dataset: Table | None = None,
    ) -> str:
        """Write the model for somebody else's program; returns the path of what was written.

        Args:
            save_path: a folder.
            format: "safetensors": the model folder. "torch_export": model.pt2 for `torch.export.load`. "onnx": a
                bundle, whose model.onnx takes uint8 images and gives uint8 class ids.
            sample_input: no effect; the graph's input is known.
            dataset: with "onnx", a table with masks on which the graph is compared with torch.

        Raises:
            ExportError: no such format, or torch cannot export the model; GateError: the graph is less accurate than
                the configuration's limits allow.
        """
        model = self._weights_path()
        with self._session.training(), progress("verifying") as step:
            from segdeploy.export.formats import export_model

            return str(export_model(model, Path(save_path), format, dataset=dataset, progress=step))

    def _weights_path(self) -> Path:
        if self._model is None:
            raise ModelError("there are no weights yet; call train, or open a model with SegModel.load")
        return self._model

    def _known_config(self) -> RunConfig:
        if self._config is None:
            raise ConfigError("this model was loaded without a configuration; give one to SegModel to train")
        return self._config

    def _batch_size(self) -> int:
        trainer = None if self._config is None else self._config.trainer
        return 1 if trainer is None else trainer.eval_batch_size or trainer.samples_per_step
