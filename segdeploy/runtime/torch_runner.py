"""Backend `torch`: the weights themselves; the truth that other backends are held against."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

from segdeploy.errors import MissingPartError, ModelError
from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime.runner import Runner, RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from segdeploy.bundle import Bundle

VARIANTS = ("", "channels_last", "compile")


class TorchRunner(Runner):
    """A `Deployed` module on one device, in eval and inference mode."""

    def __init__(self, module: nn.Module, device: str, options: RunnerOptions) -> None:
        import torch

        self.options = options
        self.device = torch.device(device)
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(options.thread_count)
        self.module: Any = module.eval().to(self.device)
        if options.variant in ("channels_last", "compile"):
            self.module = self.module.to(memory_format=torch.channels_last)
        if options.variant == "compile":
            # On two threads inductor's own kernels and oneDNN's share the layout of channels_last.
            self.module = torch.compile(self.module)

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        import numpy as np
        import torch

        ready = torch.from_numpy(np.ascontiguousarray(image))  # torch knows no negative strides (bgr[..., ::-1])
        with torch.inference_mode():
            labels: NDArray[np.uint8] = self.module(ready.to(self.device)).cpu().numpy()
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        import torch

        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "backend": "torch",
            "variant": self.options.variant or "eager",
            "provider": name,
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__},
        }

    def close(self) -> None:
        """Forget the module and restore the thread count; on CUDA the cached memory goes back to the driver."""
        import torch

        torch.set_num_threads(self._threads_before)
        del self.module
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


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
        raise MissingPartError(f"backend torch has no variant {options.variant!r}; known: channels_last, compile")
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
            summary="PyTorch, eager, channels_last or compiled",
            artifact="weights",
            available=available,
            open=open_torch,
        )
    )
