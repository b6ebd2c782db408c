"""Steps of training on random images, to see how many at a time fit into memory and how fast they are."""

from __future__ import annotations

import copy
import ctypes
import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segdeploy.classes import IGNORE
from segdeploy.environment import free_memory
from segdeploy.model.segmenter import backbone_of
from segdeploy.train.ema import build_ema
from segdeploy.train.freeze import freeze_configured
from segdeploy.train.losses import build_loss
from segdeploy.train.optim import build_optimizer
from segdeploy.train.step import autocast, half_of, scale_masks

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from segdeploy.config.schema import RunConfig
    from segdeploy.data.scan import ScanReport
    from segdeploy.model.segmenter import Segmenter

_CPU_SHARE = 0.5
"""Of the free memory; the cache of decoded samples may take as much."""
_GPU_SHARE = 0.9
"""Of the GPU's memory; what is left over is for validation, other batches' order of allocations, other programs."""
_PROBES = (2, 4)
"""Sizes from which the memory of larger ones on a CPU is told: it grows in a line."""


class StepTrial:
    """Called with a number of images: images per second, or None where they do not fit.

    The model, its loss, its optimiser and the size of the images are those of the training to come; all work is done
    on a copy, and torch's random numbers are left as they were. A context manager, which frees the device in the end.
    """

    def __init__(self, segmenter: Segmenter, config: RunConfig, report: ScanReport, device: torch.device) -> None:
        self.device, self.trainer, self.classes = device, config.trainer, len(report.classes)
        image = config.image
        self.size = image.training_size
        self.model = copy.deepcopy(segmenter).to(device).to(memory_format=torch.channels_last).train()
        if freeze_configured(self.model, config):
            backbone_of(self.model.encoder).eval()
        self.upsample = config.trainer.loss_at == "image"
        self.loss = build_loss(config.mask.loss, report).to(device)
        # The rate may not be settled yet; here it moves the copy by next to nothing.
        self.optimizer = build_optimizer(self.model, config.trainer.model_copy(update={"learning_rate": 1e-12}))
        self.ema = build_ema(self.model, config.trainer.ema_decay) if config.trainer.ema_decay else None
        self.half = half_of(config.trainer, device)
        self._needs: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        del self.model, self.optimizer, self.ema
        self._free()

    def __call__(self, images: int) -> float | None:
        """See the class."""
        on_cpu = self.device.type != "cuda"
        if on_cpu and not self._fits_cpu(images):
            return None
        try:
            if on_cpu:
                return self._run(images)
            torch.cuda.reset_peak_memory_stats()
            speed = self._run(images)
            room = _GPU_SHARE * torch.cuda.get_device_properties(self.device).total_memory
            fits = torch.cuda.max_memory_reserved() <= room
        except torch.OutOfMemoryError:
            fits = False
        except ValueError:
            if images > 1:
                raise
            fits = False  # batch norm over one image that is pooled to one cell
        self._free()
        return speed if fits else None

    def _fits_cpu(self, images: int) -> bool:
        """From the peak of two small steps; where the system does not tell a peak, only sizes up to 8 are taken."""
        if images <= _PROBES[-1]:
            return True
        for probe in _PROBES:
            if probe not in self._needs and reset_peak_memory():
                before = resident_memory()
                self._run(probe, turns=1)
                self._needs[probe] = peak_memory() - before
        if not self._needs:
            return images <= 8
        (few, low), (more, high) = sorted(self._needs.items())
        return high + (images - more) * max(0, high - low) / (more - few) <= _CPU_SHARE * free_memory()

    def _run(self, images: int, turns: int = 3) -> float:
        """Images per second of the fastest turn, the first not counted where there are more."""
        times = []
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device.type == "cuda" else []):
            x = torch.randn(images, 3, *self.size, device=self.device).contiguous(memory_format=torch.channels_last)
            y = torch.randint(self.classes, (images, *self.size), device=self.device)
            y[:, 0, 0] = IGNORE
            for _ in range(turns):
                started = time.perf_counter()
                self._step(x, y)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
        return images / min(times[1:] or times)

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        with autocast(self.device, self.half):
            logits, auxiliary = self.model.forward_aux(x, upsample=self.upsample)
        loss = self._loss(logits, y)
        for weight, more in auxiliary:
            loss = loss + weight * self._loss(more, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def _loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.loss(logits.float(), y if self.upsample else scale_masks(y, logits.shape[-2:]))
        return found

    def _free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def reset_peak_memory() -> bool:
    """Let the system count this process's peak of memory from now on; whether it can."""
    try:
        # What was freed and kept for later use would hide what is taken next.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError, TypeError):  # no glibc, no Linux
        return False
    return True


def peak_memory() -> int:
    """The most bytes of memory that this process had since `reset_peak_memory`."""
    return _status("VmHWM")


def resident_memory() -> int:
    """Bytes of memory that this process has."""
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
