"""The weights that are validated and shipped, and their scores."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from segdeploy import run_folder as place
from segdeploy.checkpoint import load_weights, save_weights
from segdeploy.model.segmenter import Deployed, Segmenter
from segdeploy.progress import progress
from segdeploy.runtime.runner import RunnerOptions
from segdeploy.runtime.torch_runner import TorchRunner
from segdeploy.train.ends import AskedError
from segdeploy.train.sharding import gather
from segdeploy.train.validate import evaluate_with_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch.optim.swa_utils import AveragedModel

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.table import Part, Sample
    from segdeploy.evaluate import EvalResult, OnScored
    from segdeploy.model.spec import ModelSpec
    from segdeploy.train.distributed import Processes
    from segdeploy.train.losses import Objective
    from segdeploy.train.signals import StopRequest


class Kept:
    """The average of the weights where there is one; in one piece, where the processes share the network out.

    Args:
        model: as it is trained.
        ema: its moving average, if there is one.
        whole: a network to fill after each epoch where `model` is shared out, else None.
        config: the run's.
        spec: the model's.
        loss: told beside the scores.
        parts: samples of the validation and the test part.
        processes: who scores together.
        stop: whether this process was asked to stop.
    """

    def __init__(
        self,
        model: Segmenter,
        ema: AveragedModel | None,
        whole: Segmenter | None,
        config: RunConfig,
        spec: ModelSpec,
        loss: Objective,
        parts: dict[Part, list[Sample]],
        processes: Processes,
        stop: StopRequest,
    ) -> None:
        self._learnt: torch.nn.Module = model if ema is None else ema.module
        self._whole = whole
        self.config, self.spec, self.loss, self.parts = config, spec, loss, parts
        self.processes, self.stop = processes, stop

    @property
    def module(self) -> torch.nn.Module:
        """They, as a network."""
        return self._whole or self._learnt

    def collect(self) -> None:
        """Take over what was learnt; every process has to call this."""
        if self._whole is not None:
            gather(self._whole, self._learnt)

    def make_room(self) -> None:
        """Leave the device to the training."""
        if self._whole is not None:
            self._whole.cpu()

    def save(self, folder: Path, epoch: int, mean_iou: float) -> None:
        """Write them to the model folder, from the first process."""
        if self.processes.first:
            parameters = sum(p.numel() for p in self.module.parameters())
            about = {"epoch": epoch, "validation_mean_iou": mean_iou, "parameters": parameters}
            save_weights(folder / place.WEIGHTS_FILE, self.module, about)

    def load(self, folder: Path) -> None:
        """Take those of the model folder, which the first process reads."""
        if self.processes.first:
            load_weights(folder / place.WEIGHTS_FILE, self.module)
        self.processes.same(list(self.module.to(self.processes.device).state_dict().values()))

    def score(self, part: Part, *, boundary: bool, on_scored: OnScored | None = None) -> EvalResult:
        """Scores and loss on the validation or test part, by the same code that `segdeploy evaluate` runs.

        Of several processes each takes its share of the samples, and all get the scores of the whole.
        """
        device = self.processes.device
        module = self.module.to(device)
        self.processes.same(list(module.buffers()))  # each has its own batches' statistics
        runner = TorchRunner(
            Deployed(module, self.spec.preprocessing), str(device), RunnerOptions(threads=torch.get_num_threads())
        )
        rank, count = self.processes.rank, self.processes.size
        with self._watched(f"scoring the {part} part") as step:
            return evaluate_with_loss(
                runner,
                self.loss,
                self.parts[part][rank::count],
                self.spec,
                batch_size=self.config.trainer.eval_batch_size or self.config.trainer.samples_per_step,
                boundary=boundary,
                progress=step,
                on_scored=on_scored,
                add_up=self.processes.add_up_exactly if count > 1 else None,
            )

    @contextmanager
    def _watched(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Progress that ends with AskedError where a signal came; of several processes not all would know."""
        with progress(what) as show:

            def step(done: int, total: int) -> None:
                show(done, total)
                if self.processes.size == 1 and self.stop.signal is not None:
                    raise AskedError

            yield step
