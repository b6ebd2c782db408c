"""What a part costs: time, operations, memory. No number is too large; only what grows from pass to pass is."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segdeploy.conformance.rule import BrokenError, Found, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segdeploy.conformance.subject import Subject

_PASSES = 5
_MIB = 2**20


def check_cost(subject: Subject) -> Found:
    """Numbers of the part alone, one image; and tensors that stay alive from pass to pass."""
    model = subject.model
    module = subject.half(model)
    size = subject.sizes[-1]
    with torch.no_grad():
        image = subject.images(1, size)
        given: Any = image if subject.part.kind == "encoder" else tuple(model.encoder(image))
        _refuse_growth("in eval mode", lambda: subject.outputs(model, image))
        times = []
        for _ in range(_PASSES):
            started = time.perf_counter()
            module(given)
            times.append((time.perf_counter() - started) * 1e3)
        with FlopCounterMode(display=False) as operations:
            module(given)
        with _Peak() as peak:
            module(given)
    learner = subject.assemble()
    with subject.blame("a training step"):
        _refuse_growth("in training mode", lambda: subject.train_steps(learner, 1))
    numbers = {
        "size": list(size),
        "milliseconds": round(statistics.median(times), 3),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in module.parameters()),
        "macs": operations.get_total_flops() // 2,
        "peak_activation_mib": round(peak.most / _MIB, 3),
    }
    return Found(
        f"{numbers['milliseconds']:.1f} ms, {numbers['macs'] / 1e6:.0f} M MACs, "
        f"{numbers['peak_activation_mib']:.1f} MiB of maps at {size[1]}x{size[0]}",
        numbers,
    )


def _refuse_growth(where: str, run: Callable[[], object]) -> None:
    if _growth(run):  # what a cycle holds goes when the garbage is collected, which takes its time
        gc.collect()
        if each := _growth(run, collect=True):
            raise BrokenError(f"{where} each pass leaves {each:,} bytes of tensors alive", bytes_per_pass=each)


def _growth(run: Callable[[], object], *, collect: bool = False) -> int:
    """Bytes that each of four passes adds, on average; 0 where one of them adds none."""
    alive = []
    gc.freeze()  # what there was before is not listed any more, which makes the listing fast
    try:
        for _ in range(_PASSES):
            run()
            if collect:
                gc.collect()
            tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
            alive.append(sum(t.nelement() * t.element_size() for t in tensors))
            del tensors
    finally:
        gc.unfreeze()
    settled = alive[1:]  # the first pass may fill a cache
    grows = all(before < after for before, after in itertools.pairwise(settled))
    return (settled[-1] - settled[0]) // (len(settled) - 1) if grows else 0


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make, while they live; `most` is the peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count its outputs."""
        made = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known | given:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


RULES = (
    Rule(
        name="cost",
        kinds=("encoder", "decoder"),
        sentence="Time, operations and memory are measured; no tensor stays alive from one pass to the next.",
        fix="Keep no maps on the module (lists, caches that grow); hand them on as results.",
        check=check_cost,
        needs=("gradient", "deterministic"),
    ),
)
