"""Backends that each have one fault; the tests install this file as a distribution, for the workers too."""

import os
import signal
import time

import numpy as np

from segdeploy.plugin import Availability, BackendPlugin, hookimpl, registry
from segdeploy.runtime.runner import Runner, RunnerOptions


class Planted(Runner):
    """onnxruntime on the CPU, with a fault."""

    def __init__(self, bundle, options, fault):
        self.inner = registry.backend("onnxruntime").open(bundle, RunnerOptions(threads=options.threads, device="cpu"))
        self.fault, self.calls = fault, 0

    def run(self, image):
        self.calls += 1
        return self.fault(self.inner.run(image), self.calls)

    def describe(self):
        return {**self.inner.describe(), "backend": "planted"}


def shift(labels, _):
    """One pixel to the right."""
    return np.concatenate([labels[..., :1], labels[..., :-1]], axis=-1)


def drop(labels, _):
    """Every tenth row of pixels gets another class."""
    lost = labels.copy()
    lost[:, ::10] = (lost[:, ::10] + 1) % 7
    return lost


def sleep(seconds):
    def fault(labels, _):
        time.sleep(seconds)
        return labels

    return fault


def crash(labels, calls):
    if calls > 4:
        os.kill(os.getpid(), signal.SIGSEGV)
    return labels


def orphan(labels, _):
    """Dies, and leaves a child that holds its files open."""
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {
    "shift": shift,
    "drop": drop,
    "slow": sleep(0.1),
    "short": sleep(0.03),
    "long": sleep(0.06),
    "hang": sleep(600),
    "crash": crash,
    "orphan": orphan,
    # Alike for one image, far from torch in a batch.
    "mixed": lambda labels, _: labels if len(labels) == 1 else (labels + 1) % 7,
    # Another class than most pixels have, so that the model need not be good to part from it.
    "nan": lambda labels, _: labels * 0 + 3,
    "noclass": lambda labels, calls: labels + 200 * (calls > 12),
    "fallback": lambda labels, _: labels,
}


@hookimpl
def segdeploy_register_backends(register):
    for name, fault in FAULTS.items():
        register(
            BackendPlugin(
                name=name,
                summary="planted",
                artifact="onnx",
                available=lambda: Availability(ok=True),
                open=lambda bundle, options, fault=fault: Planted(bundle, options, fault),
            )
        )
