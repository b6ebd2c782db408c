"""A build that shows its progress, and that Ctrl-C or an error of the caller's ends early."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.runtime.trt import Flavour

    Progress = Callable[[int, int], None]


WHOLE = 1000
"""Steps of a build, as `progress` gets them."""


def build_plan(
    flavour: Flavour, builder: Any, network: Any, config: Any, progress: Progress | None = None
) -> bytes | None:
    """`build_serialized_network`; None where it fails.

    The build has a thread of its own. The library swallows what callbacks raise, an interrupt too, and Python raises
    interrupts in the main thread alone: so that one only waits, and tells the build to end.

    Raises:
        What `progress` raises, or the interrupt, once the build has ended.
    """
    monitor = _monitor(flavour.module, progress)
    config.progress_monitor = monitor
    may_begin = Event()

    def make() -> Any:
        may_begin.wait()
        return None if monitor.cancelled else builder.build_serialized_network(network, config)

    with ThreadPoolExecutor(1, thread_name_prefix="engine") as pool:
        try:
            building = pool.submit(make)
            may_begin.set()  # the pool waits for this thread from here on, an interrupt within `submit` left it unknown
            plan = building.result()
        except BaseException:
            monitor.cancelled = True
            raise
        finally:
            may_begin.set()
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        return None
    if progress is not None:
        progress(WHOLE, WHOLE)
    return bytes(plan)


def _monitor(trt: Any, progress: Progress | None) -> Any:
    """Says how much of the build is done.

    Phases nest, and how many steps a phase has says nothing about how long they take; so the whole is the outermost
    phase, and a nested phase fills the step that it began in.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.error: BaseException | None = None
            self.phases: dict[str, tuple[str | None, int, int]] = {}
            self.told = -1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = parent_phase, max(1, num_steps), 0

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps, _ = self.phases.get(phase_name, (None, 1, 0))
            self.phases[phase_name] = parent, steps, min(steps, step + 1)
            self._tell()
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def _tell(self) -> None:
            done, scale = 0.0, 1.0
            for _, steps, at in self.phases.values():  # in the order in which they began, outermost first
                done += scale * at / steps
                scale /= steps
            found = min(WHOLE - 1, int(WHOLE * done))
            if progress is None or self.cancelled or found <= self.told:
                return
            self.told = found
            try:
                progress(found, WHOLE)
            except BaseException as e:
                self.error, self.cancelled = e, True

    return Monitor()
