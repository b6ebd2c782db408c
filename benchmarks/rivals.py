"""What a user would pick instead of a bundle, as backends: so that `segdeploy.benchmark` measures them like its own.

    by-hand            a plain ONNX export of the network, NumPy before it and after it, onnxruntime between
    openvino-default   the bundle's ONNX file as OpenVINO's documentation runs it; it may choose bfloat16 by itself

`installed` registers them through the door that any third party uses: a folder on the path with the metadata of a
distribution.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segdeploy.plugin import Availability, BackendPlugin, hookimpl
from segdeploy.runtime.runner import Runner, RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from segdeploy.bundle import Bundle

BY_HAND, OPENVINO_DEFAULT = "by-hand", "openvino-default"
PLAIN_FILE = "plain.onnx"


class ByHand(Runner):
    """The loop that is written first: normalise, run, argmax. Careful enough to stay in FP32 and to keep its arrays."""

    def __init__(self, bundle: Bundle, options: RunnerOptions) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.thread_count
        self.session = ort.InferenceSession(str(bundle.path / PLAIN_FILE), settings, providers=["CPUExecutionProvider"])
        self.mean = np.array(bundle.spec.preprocessing.mean, np.float32)
        self.std = np.array(bundle.spec.preprocessing.std, np.float32)
        self.threads = options.thread_count

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        x = (image.astype(np.float32) / 255 - self.mean) / self.std
        (logits,) = self.session.run(None, {"image": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
        labels: NDArray[np.uint8] = logits.argmax(1).astype(np.uint8)
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        return _about(BY_HAND, "CPUExecutionProvider", self.threads, "onnxruntime")


class OpenVinoDefault(Runner):
    """`compile_model` with the number of threads and the hint that is meant for latency, and nothing else."""

    def __init__(self, bundle: Bundle, options: RunnerOptions) -> None:
        import openvino

        # The form for CPUs was made for onnxruntime's kernels; this is model.onnx.
        graph = bundle.find("onnx", target="tensorrt")
        assert graph is not None
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": options.thread_count}
        self.model = openvino.Core().compile_model(str(bundle.path / graph.file), "CPU", settings)
        self.threads = options.thread_count

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Runner.run`."""
        labels: NDArray[np.uint8] = self.model(image)["mask"]
        return labels

    def describe(self) -> dict[str, Any]:
        """See `Runner.describe`."""
        hint = str(self.model.get_property("INFERENCE_PRECISION_HINT")).strip("<>").split()[-1].strip("'")
        return _about(OPENVINO_DEFAULT, "CPU", self.threads, "openvino") | {"computed_in": hint}


def _about(name: str, provider: str, threads: int, package: str) -> dict[str, Any]:
    version = importlib.metadata.version(package)
    told = {"backend": name, "variant": "", "provider": provider, "precision": "fp32", "threads": threads}
    return {**told, "versions": {package: version}}


def write_plain(run: Path, path: Path) -> None:
    """The network of a run as `torch.onnx.export` writes it: `image` float32 (batch, 3, H, W) -> logits."""
    import torch

    from segdeploy.bundle import open_model
    from segdeploy.checkpoint import load_weights
    from segdeploy.model.segmenter import build

    source = open_model(run)
    weights = source.find("weights")
    assert weights is not None
    segmenter = build(source.spec)
    load_weights(source.path / weights.file, segmenter)
    size = (source.spec.preprocessing.height, source.spec.preprocessing.width)
    program = torch.onnx.export(
        segmenter.eval(),
        (torch.zeros(2, 3, *size),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: "batch"}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path)


def _installed(package: str) -> Availability:
    if importlib.util.find_spec(package) is None:
        return Availability(ok=False, reason=f"{package} not installed; pip install {package}")
    return Availability(ok=True, version=importlib.metadata.version(package))


@hookimpl
def segdeploy_register_backends(register: Callable[[BackendPlugin], None]) -> None:
    """Register both."""
    for name, package, artifact, form in (
        (BY_HAND, "onnxruntime", "plain", ByHand),
        (OPENVINO_DEFAULT, "openvino", "onnx", OpenVinoDefault),
    ):
        register(
            BackendPlugin(
                name=name,
                summary=f"{package} as a user writes it",
                artifact=artifact,
                available=partial(_installed, package),
                open=form,
            )
        )


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Here and in processes that are started meanwhile the rivals are backends; `folder` is empty and takes files."""
    info = folder / "rivals-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rivals\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[segdeploy]\nbackend.rivals = rivals\n")
    here = [str(folder), str(Path(__file__).parent)]
    before, path = os.environ.get("PYTHONPATH"), list(sys.path)
    os.environ["PYTHONPATH"] = os.pathsep.join([*here, *([before] if before else [])])
    sys.path[:0] = here
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
