"""How and where a SegModel works: the constructor's arguments, checked."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.arguments import backend_of, device_of
from segdeploy.config.load import config_from_dict, load_config
from segdeploy.config.schema import RunConfig
from segdeploy.errors import ConfigError
from segdeploy.plugin.extras import require
from segdeploy.progress import quiet
from segdeploy.runtime.runner import Runner, RunnerOptions, open_runner

if TYPE_CHECKING:
    from segdeploy.bundle import Bundle

OnEpoch = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """Where to run, with how many threads, and how loudly."""

    backend: str | None
    device: str
    threads: int | None
    gpu_memory_limit: float | None
    quiet: bool
    callbacks: tuple[OnEpoch, ...]

    @contextmanager
    def training(self) -> Iterator[None]:
        """torch held to the threads and the memory that were asked for."""
        require("train")
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        if self.gpu_memory_limit is not None and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(self.gpu_memory_limit)
        try:
            with quiet(self.quiet):
                yield
        finally:
            torch.set_num_threads(before)

    @contextmanager
    def running(self, opened: Bundle) -> Iterator[Runner]:
        """A runner for the model."""
        options = RunnerOptions(threads=self.threads, device=self.device)
        with quiet(self.quiet), open_runner(opened, self.backend, options) as runner:
            yield runner

    def on_epoch(self, more: Sequence[OnEpoch] | None) -> OnEpoch:
        """A function that logs an epoch's numbers and hands them to all callbacks."""
        callbacks = [*self.callbacks, *checked_callbacks(more)]

        def call(row: dict[str, Any]) -> None:
            log.info(
                "epoch %d: training loss %.4f, validation mean IoU %.4f",
                *(row[key] for key in ("epoch", "training_loss", "validation_mean_iou")),
            )
            for callback in callbacks:
                callback(row)

        return call


def start_session(
    logging_level: int,
    backend: str | Mapping[str, Any] | None,
    gpus: int | str | Sequence[int] | None,
    gpu_memory_limit: float | None,
    allow_parallel_threads: bool,
    callbacks: Sequence[OnEpoch] | None,
) -> Session:
    """Ludwig's constructor arguments as a Session; sets the level of the logger "segdeploy"."""
    logging.getLogger("segdeploy").setLevel(logging_level)
    return Session(
        backend=backend_of(backend),
        device=device_of(gpus),
        threads=None if allow_parallel_threads else 1,
        gpu_memory_limit=gpu_memory_limit,
        quiet=logging_level > logging.INFO,
        callbacks=checked_callbacks(callbacks),
    )


def checked_callbacks(callbacks: Sequence[OnEpoch] | None) -> tuple[OnEpoch, ...]:
    """The same functions; ConfigError for anything that cannot be called."""
    for callback in callbacks or ():
        if not callable(callback):
            raise ConfigError(f"callbacks: expected functions of one dict, got {type(callback).__name__}")
    return tuple(callbacks or ())


def read_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | RunConfig | None, lenient: bool = False
) -> RunConfig | None:
    """A file or a dict, checked; ConfigError with all mistakes in it."""
    if config is None or isinstance(config, RunConfig):
        return config
    if isinstance(config, (str, os.PathLike)):
        return load_config(Path(config), lenient=lenient)
    if isinstance(config, Mapping):
        return config_from_dict(config, lenient=lenient)
    raise ConfigError(f"config: expected a path or a dict, got {type(config).__name__}")


def refuse(**given: Any) -> None:
    """ConfigError for Ludwig's arguments that would change the result and have no meaning here."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name}: expected None, got {type(value).__name__}; segdeploy has no use for it")
