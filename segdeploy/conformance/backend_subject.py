"""A backend under test, and the small bundle that it must run."""

from __future__ import annotations

import functools
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segdeploy.bundle import WEIGHTS_FILE, Bundle, BundleFile, artifact, write_bundle
from segdeploy.checkpoint import save_weights
from segdeploy.conformance.blame import Blame
from segdeploy.conformance.find import Part, parts
from segdeploy.conformance.rule import SkippedError
from segdeploy.conformance.subject import Subject
from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.export.engine import build_engine
from segdeploy.files import write_bytes
from segdeploy.model.segmenter import Deployed
from segdeploy.runtime.engine_lock import ENGINE_FILE
from segdeploy.runtime.runner import RunnerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from segdeploy.conformance.blame import Errors
    from segdeploy.runtime.runner import Runner

_ONNX_FILE = "model.onnx"


@functools.cache
def reference() -> Subject:
    """The model that every backend must run: U-Net's encoder and a pyramid, both small."""
    return Subject(parts("fpn", "decoder")[0], {"num_channels": 16, "merge_channels": 16}, "unet")


class BackendSubject:
    """Backends have no keys and no partner: `values` and `partner` must be empty."""

    def __init__(self, part: Part, values: Mapping[str, Any] | None = None, partner: str | None = None) -> None:
        if values or partner:
            raise ConfigError(f"{part}: a backend has no keys and no partner; leave --set and --with out")
        self.part = part
        self.blame = Blame(part.plugin.open)
        self.size = reference().sizes[-1]
        self._folder = tempfile.TemporaryDirectory(prefix="segdeploy-kit-")  # goes with this object

    def about(self) -> dict[str, Any]:
        """What it runs, JSON-ready."""
        return {"artifact": self.part.plugin.artifact}

    @functools.cached_property
    def bundle(self) -> Bundle:
        """A bundle with weights, an ONNX file and, where the backend wants one, an engine."""
        model, spec, folder = reference().model, reference().spec(self.size), Path(self._folder.name)
        save_weights(folder / WEIGHTS_FILE, model, {})
        write_bytes(folder / _ONNX_FILE, reference().graph)
        held = [artifact(folder, WEIGHTS_FILE, "weights", "fp32"), artifact(folder, _ONNX_FILE, "onnx", "fp32")]
        if self.part.plugin.artifact == "engine":
            try:
                about = build_engine(folder / _ONNX_FILE, spec, folder).model_dump(mode="json")
            except MissingPartError as e:
                raise SkippedError(str(e)) from e
            held.append(artifact(folder, ENGINE_FILE, "engine", "fp32", about))
        return write_bundle(folder, BundleFile(spec=spec, artifacts=tuple(held)))

    @contextmanager
    def opened(self, besides: Errors = (), **options: Any) -> Iterator[Runner]:
        """The backend's runner on the bundle, one thread if not said otherwise; opening may raise `besides`.

        Raises:
            SkippedError: the backend cannot run here, or the kit has no file for it.
        """
        if not (ready := self.part.plugin.available()).ok:
            raise SkippedError(ready.reason)
        if self.bundle.find(wanted := self.part.plugin.artifact) is None:
            raise SkippedError(f"it runs {wanted!r}, of which the kit has no file; known: weights, onnx, engine")
        with self.blame("open", besides):
            runner: Runner = self.part.plugin.open(self.bundle, RunnerOptions(**{"threads": 1} | options))
            runner.__enter__()
        try:
            yield runner
        finally:
            with self.blame("close"):
                runner.__exit__(None, None, None)

    def run(self, runner: Runner, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`runner.run`; what it raises is the backend's failure."""
        with self.blame("run"):
            return runner.run(image)

    def images(self, count: int, seed: int = 0) -> NDArray[np.uint8]:
        """(count, H, W, 3) uint8."""
        return np.random.default_rng(seed).integers(0, 256, (count, *self.size, 3), dtype=np.uint8)

    def expected(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """torch's labels."""
        with torch.no_grad():
            deployed = Deployed(reference().model, self.bundle.spec.preprocessing).eval()
            labels: NDArray[np.uint8] = deployed(torch.from_numpy(image)).numpy()
        return labels
