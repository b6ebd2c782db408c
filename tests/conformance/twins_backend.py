"""A good backend, and broken twins of it: each differs by one change, and breaks one rule."""

import dataclasses

import numpy as np

from segdeploy.plugin import Availability, BackendPlugin
from segdeploy.runtime.ort_runner import OrtRunner, available, open_onnxruntime


class Runner(OrtRunner):
    """The good one is onnxruntime's; twins change what comes out."""

    def run(self, image):
        return super().run(np.ascontiguousarray(image))


def backend(runner=Runner, **more):
    def open_twin(bundle, options):
        made = open_onnxruntime(bundle, options)
        made.__class__ = runner
        return made

    about = {"name": "onnxruntime", "summary": "a twin", "artifact": "onnx", "available": available, "open": open_twin}
    return BackendPlugin(**(about | more))


def without_version():
    return Availability(ok=True)


def open_nothing(bundle, options):
    return object()


def open_anyhow(bundle, options):
    return open_onnxruntime(bundle, dataclasses.replace(options, variant=""))


class Mirrored(Runner):
    def run(self, image):
        return super().run(image)[:, :, ::-1]


class WideLabels(Runner):
    def run(self, image):
        return super().run(image).astype(np.int64)


def speckled(labels, random):
    labels = labels.copy()
    labels[:, random.integers(labels.shape[1]), random.integers(labels.shape[2])] ^= 1
    return labels


class Flickers(Runner):
    random = np.random.default_rng(0)

    def run(self, image):
        return speckled(super().run(image), self.random)


class OneBuffer(Runner):
    buffers = {}

    def run(self, image):
        labels = super().run(image)
        buffer = self.buffers.setdefault(labels.shape, labels)
        buffer[...] = labels
        return buffer


class OverwritesImage(Runner):
    def run(self, image):
        labels = super().run(image)
        if image.flags.c_contiguous:
            image[..., 0] = 0
        return labels


class OtherEachTime(Runner):
    opened = 0

    def __enter__(self):
        type(self).opened += 1
        self.seed = self.opened
        return self

    def run(self, image):
        return speckled(super().run(image), np.random.default_rng(self.seed))


class SaysHalf(Runner):
    def describe(self):
        return super().describe() | {"precision": "fp16"}


class OneMoreThread(Runner):
    def describe(self):
        return super().describe() | {"threads": self.options.thread_count + 1}


class KeepsResults(Runner):
    kept = []

    def run(self, image):
        labels = super().run(image)
        self.kept.append(labels.copy())
        return labels


GOOD = {"backend": backend()}

# Kind, rule, twin.
TWINS = [
    ("backend", "available", backend(available=without_version)),
    ("backend", "open", backend(open=open_nothing)),
    ("backend", "labels", backend(Mirrored)),
    ("backend", "labels", backend(WideLabels)),
    ("backend", "deterministic", backend(Flickers)),
    ("backend", "result-kept", backend(OneBuffer)),
    ("backend", "result-kept", backend(OverwritesImage)),
    ("backend", "describe", backend(SaysHalf)),
    ("backend", "threads", backend(OneMoreThread)),
    ("backend", "refuses", backend(open=open_anyhow)),
    ("backend", "reopen", backend(OtherEachTime)),
    ("backend", "cost", backend(KeepsResults)),
]
