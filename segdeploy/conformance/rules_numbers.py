"""Rules about what a part computes, and what of it training and files keep."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segdeploy.checkpoint import load_weights, save_weights
from segdeploy.conformance.rule import BrokenError, Found, Rule

if TYPE_CHECKING:
    from torch import Tensor

    from segdeploy.conformance.subject import Subject

_CLOSE = 1e-3  # of the largest value: kernels differ with the batch


def check_deterministic(subject: Subject) -> Found:
    """Twice the same image in eval mode."""
    image = subject.images(2, subject.sizes[-1])
    first, second = (subject.outputs(subject.model, image) for _ in range(2))
    _compare(first, second, "two passes over one image in eval mode", 0)
    return Found()


def check_batch_independence(subject: Subject) -> Found:
    """Three images together and one by one."""
    images = subject.images(3, subject.sizes[-1])
    together = subject.outputs(subject.model, images)
    alone = [subject.outputs(subject.model, images[i : i + 1]) for i in range(3)]
    joined = tuple(torch.cat(maps) for maps in zip(*alone, strict=True))
    worst = _compare(together, joined, "an image alone and in a batch of 3", _CLOSE)
    return Found(f"largest difference {worst:.1e}", {"difference": worst})


def _compare(first: tuple[Tensor, ...], second: tuple[Tensor, ...], what: str, tolerance: float) -> float:
    """The largest difference, relative to the largest value where that is above 1."""
    worst = 0.0
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        difference = float((a - b).abs().max()) / max(1.0, float(a.abs().max()))
        if not difference <= tolerance:
            raise BrokenError(f"{what}: map {place} differs by {difference:.1e}", difference=difference)
        worst = max(worst, difference)
    return worst


def check_gradient(subject: Subject) -> Found:
    """Three steps in training mode; each parameter must have a gradient, and each matrix one that is not 0."""
    model = subject.assemble()
    # Several batches: a unit that is silent on one may speak on another (ReLU, drop-out), and a residual branch
    # that starts at zero (ResNet) speaks from the second step on.
    with subject.blame("a training step"):
        subject.train_steps(model, 3, rate=1e-3)
    named = [(n, p) for n, p in subject.half(model).named_parameters() if p.requires_grad]
    for what, silent in (
        ("no gradient reaches", [n for n, p in named if p.grad is None]),
        ("the gradient is not finite of", [n for n, p in named if p.grad is not None and not p.grad.isfinite().all()]),
        ("the gradient is 0 of", [n for n, p in named if p.grad is not None and p.ndim > 1 and not p.grad.any()]),
    ):
        if silent:
            raise BrokenError(f"{what} {', '.join(silent[:5])}{', ...' if len(silent) > 5 else ''}", parameters=silent)
    frozen = sum(not p.requires_grad for p in subject.half(model).parameters())
    said = f", {frozen} without requires_grad" if frozen else ""
    return Found(f"{len(named)} parameters{said}", {"parameters": len(named), "frozen": frozen})


def check_round_trip(subject: Subject) -> Found:
    """Train, save, load into a new module, compare."""
    model = subject.assemble(seed=0)
    other = subject.assemble(seed=1).eval()
    with subject.blame("a training step"):
        subject.train_steps(model, 2, rate=1e-2)
    with tempfile.TemporaryDirectory() as folder, subject.blame("the weights' file"):
        save_weights(Path(folder) / "w.safetensors", model, {})
        load_weights(Path(folder) / "w.safetensors", other)
    image = subject.images(1, subject.sizes[-1])
    first, second = subject.outputs(model.eval(), image), subject.outputs(other, image)
    _compare(first, second, "a trained module and a new one with its weights", 0)
    return Found(f"{len(subject.half(model).state_dict())} tensors")


RULES = (
    Rule(
        name="deterministic",
        kinds=("encoder", "decoder"),
        sentence="In eval mode the same image gives the same maps, to the bit.",
        fix="Drop-out and other random numbers only where self.training is true: nn.Dropout, or "
        "F.dropout(x, p, training=self.training).",
        check=check_deterministic,
        needs=("input-kept",),
    ),
    Rule(
        name="batch-independence",
        kinds=("encoder", "decoder"),
        sentence="In eval mode an image gives the same maps alone and in a batch.",
        fix="Compute no statistics over the batch dimension in eval mode; use stored ones, as nn.BatchNorm2d does.",
        check=check_batch_independence,
        needs=("deterministic",),
    ),
    Rule(
        name="gradient",
        kinds=("encoder", "decoder"),
        sentence="A training step works, and a finite gradient reaches every parameter.",
        fix="Take parameters out that nothing uses, do not detach what should learn, and make what should never "
        "learn a buffer (register_buffer) or requires_grad_(False).",
        check=check_gradient,
        needs=("levels", "output", "auxiliary", "input-kept"),
    ),
    Rule(
        name="state-round-trip",
        kinds=("encoder", "decoder"),
        sentence="Trained weights, saved and loaded into a newly built module, give the same maps.",
        fix="Keep all that the maps depend on in parameters, persistent buffers and submodules (nn.ModuleList, never a "
        "plain list), with names and shapes that follow "
        "from the configuration alone; share no tensor under two names.",
        check=check_round_trip,
        needs=("deterministic", "gradient"),
    ),
)
