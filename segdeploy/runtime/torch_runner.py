"""Backend `torch`: the weights themselves; the truth that other backends are held against."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime.runner import Runner, RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from segdeploy.bundle import Bundle

VARIANTS = ("", "channels_last", "amp", "compile", "compile_amp")
"""AMP is float16 on CUDA and bfloat16 on a CPU; all but "" keep their tensors as channels_last."""


class TorchRunner(Runner):
    """A `Deployed` module on one device, in eval and inference mode."""

    def __init__(self, module: nn.Module, device: str, options: RunnerOptions) -> None:
        import torch

        self.options = options
        self.device = torch.device(device)
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(options.thread_count)
        on_cuda = self.device.type == "cuda"
        self.half = (torch.float16 if on_cuda else torch.bfloat16) if options.variant.endswith("amp") else None
        self.module: Any = module.eval().to(self.device)
        if options.variant:
            # On two threads inductor's own kernels and oneDNN's share the layout of channels_last.
            self.module = self.module.to(memory_format=torch.channels_last)
        if options.variant.startswith("compile"):
            # With CUDA graphs where there is CUDA: else torch spends its time on launching kernels. On a CPU inductor
            # folds and packs weights only when they are frozen, which they are here.
            how: dict[str, Any] = {"mode": "reduce-overhead"} if on_cuda else {"options": {"freezing": True}}
            self.module = torch.compile(self.module, **how)
        if self.half is not None:
            # One level around all calls: leaving the outermost one would forget the weights that were cast.
            torch.autocast_increment_nesting()

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        import numpy as np
        import torch

        ready = torch.from_numpy(np.ascontiguousarray(image))  # torch knows no negative strides (bgr[..., ::-1])
        amp = torch.autocast(self.device.type, self.half) if self.half is not None else nullcontext()
        with torch.inference_mode(), amp:
            there = ready.to(self.device)
            clock = _clock(self.device)
            labels = self.module(there)
            read = clock()
            found: NDArray[np.uint8] = labels.cpu().numpy()
        self.engine_seconds = read()
        return found

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        import torch

        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "backend": "torch",
            "variant": self.options.variant or "eager",
            "provider": name,
            "precision": {None: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[self.half],
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__},
        }

    def close(self) -> None:
        """Forget the module and restore the thread count; on CUDA the cached memory goes back to the driver."""
        import torch

        torch.set_num_threads(self._threads_before)
        if self.half is not None and torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        del self.module
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _clock(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Start a clock; call the result to stop it, and that result, once the device is done, for the seconds between."""
    if device.type != "cuda":
        started = time.perf_counter()

        def stop() -> Callable[[], float]:
            seconds = time.perf_counter() - started
            return lambda: seconds

        return stop
    import torch

    event: Any = torch.cuda.Event
    before, after = event(enable_timing=True), event(enable_timing=True)
    before.record()

    def record() -> Callable[[], float]:
        after.record()
        return lambda: float(before.elapsed_time(after)) / 1e3

    return record


def pick_device(wanted: str) -> str:
    """ "auto" to "cuda" or "cpu"; MissingPartError when CUDA is asked for and absent."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise MissingPartError("device cuda: torch finds no CUDA device here; use --device cpu")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        raise MissingPartError(f"device {wanted}: expected auto, cpu or cuda: {str(e).splitlines()[0][:120]}") from e
    return wanted


def available() -> Availability:
    """Whether torch and timm are installed; asked without importing them."""
    missing = [name for name in ("torch", "timm", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        return Availability(ok=False, reason=f"{', '.join(missing)} not installed; pip install 'segdeploy[train]'")
    return Availability(ok=True, version=importlib.metadata.version("torch"))


def open_torch(bundle: Bundle, options: RunnerOptions) -> TorchRunner:
    """Rebuild the model from its description and load the weights."""
    from segdeploy.checkpoint import load_weights
    from segdeploy.model.segmenter import Deployed, build

    if options.variant not in VARIANTS:
        raise MissingPartError(f"backend torch has no variant {options.variant!r}; known: {', '.join(VARIANTS[1:])}")
    artifact = bundle.find("weights", options.precision)
    if artifact is None:
        raise ModelError(f"{bundle.path}: holds no torch weights of precision {options.precision}")
    segmenter = build(bundle.spec)
    load_weights(bundle.path / artifact.file, segmenter)
    import torch

    # FP32 is meant to be FP32: on CUDA both would round to TF32's ten bits.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return TorchRunner(Deployed(segmenter, bundle.spec.preprocessing), pick_device(options.device), options)


@hookimpl
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Register `torch`."""
    register(
        BackendPlugin(
            name="torch",
            summary="PyTorch: eager, channels_last, AMP or compiled",
            artifact="weights",
            available=available,
            open=open_torch,
        )
    )
