"""What ends a run before its last epoch, each as one line."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from segdeploy.errors import SegdeployError, first_line
from segdeploy.files import is_full
from segdeploy.train.diverged import report_divergence
from segdeploy.train.signals import StoppedError
from segdeploy.train.step import DivergedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segdeploy.train.epochs import Training


class AskedError(Exception):
    """A signal asked for the end, and nothing is half done."""


@contextmanager
def ends_in_one_line(training: Training) -> Iterator[None]:
    """Inside a run trains; what stops it is saved where there is something to save.

    Raises:
        StoppedError: SIGTERM or SIGINT came; the state is saved.
        SegdeployError: the loss is no longer a number, a disk is full, or torch.compile cannot do it.
    """
    processes, done = training.processes, training.state.progress
    try:
        yield
    except AskedError:
        if not training.trained:
            training.save()
        stopped = StoppedError(training.run, training.stop.signal or signal.SIGTERM, _where(training))
        raise processes.said_once(stopped) from None
    except DivergedError as e:
        where = {"epoch": done.epoch + 1, "step": done.batches + 1}
        samples, mixed = training.parts["training"], training.half is torch.float16
        said = report_divergence(training.run, e, training.model, training.spec, samples, processes, where, mixed=mixed)
        raise processes.said_once(said) from None
    except OSError as e:
        if not is_full(e):
            raise
        raise SegdeployError(
            f"{training.run}: cannot be written: {e.strerror}; make room, and go on with --resume"
        ) from e
    except Exception as e:
        compiler = type(e).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if not (training.config.trainer.compile and compiler):
            raise
        cannot = f"torch.compile cannot compile this network here: {first_line(e)[:200]}; set trainer.compile: false"
        raise SegdeployError(cannot) from e


def _where(training: Training) -> str:
    done, epochs = training.state.progress, training.config.trainer.epochs
    if not done.batches:
        return f"after epoch {done.epoch} of {epochs}"
    return f"in epoch {done.epoch + 1} of {epochs}, after step {done.batches} of {training.plan.steps}"
