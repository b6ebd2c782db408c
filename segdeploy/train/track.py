"""Trackers: plugins that are told each epoch's numbers, such as MLflow's. What goes wrong there stops no training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from segdeploy.errors import SegdeployError
from segdeploy.plugin import registry
from segdeploy.plugin.attempt import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from segdeploy.plugin import Tracker

log = logging.getLogger(__name__)


class Trackers:
    """Those that `trainer.trackers` names, found at once and opened later.

    Raises:
        MissingPartError: one of them is not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._plugins = [registry.tracker(name) for name in names]
        self._open: dict[str, Tracker] = {}

    def open(self, run: Path, config: Mapping[str, Any]) -> None:
        """Open them all, before anything is trained.

        Raises:
            SegdeployError: one cannot be opened.
        """
        for plugin in self._plugins:
            try:
                self._open[plugin.name] = plugin.open(run, config)
            except SegdeployError:
                raise
            except Exception as e:
                raise SegdeployError(
                    f"tracker {plugin.name}: cannot be opened: {one_line(e)}; remove it from trainer.trackers to go on"
                ) from e

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Hand on the numbers of an epoch, one line of `metrics.jsonl`."""
        self._tell(lambda tracker: tracker.epoch(row))

    def close(self, *, finished: bool) -> None:
        """Say that the training has come to its end, or was broken off."""
        self._tell(lambda tracker: tracker.close(finished=finished))
        self._open.clear()

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as e:
                log.warning("tracker %s: %s; it is told nothing more of this training", name, one_line(e))
                del self._open[name]
