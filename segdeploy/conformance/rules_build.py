"""Rules about what `build` gives."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import patch

import torch
from torch import nn

from segdeploy.conformance.rule import BrokenError, Found, Rule
from segdeploy.conformance.subject import seeded
from segdeploy.model.segmenter import aux_of, features_of, out_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from segdeploy.conformance.subject import Subject
    from segdeploy.plugin import FeatureMap


def check_build(subject: Subject) -> Found:
    """The module's class and the facts that stand on it."""
    if subject.part.kind == "encoder":
        module = subject.build_encoder(subject.section)
        _check_module(module)
        with subject.blame("build"):
            _check_encoder(module)
    partner, its = subject.partner
    encoder, decoder = subject.join(partner, its, subject.section)
    module = encoder if subject.part.kind == "encoder" else decoder
    _check_module(module)
    with subject.blame("build"):
        auxiliary = aux_of(module)
        if subject.part.kind == "decoder":
            _check_level(out_of(module))
        if auxiliary and not callable(getattr(module, "forward_aux", None)):
            raise BrokenError(
                f"{type(module).__name__} declares {len(auxiliary)} auxiliary maps and has no forward_aux"
            )
        if not isinstance(getattr(module, "dynamic_size", False), bool):
            raise BrokenError(f"dynamic_size: expected True or False, found {module.dynamic_size!r}")
        count = sum(p.numel() for p in module.parameters())
    return Found(f"{count / 1e6:.2f} M parameters, wired to {partner}", {"parameters": count})


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise BrokenError(f"build: expected a torch.nn.Module, found {type(module).__name__}")


def _check_encoder(module: nn.Module) -> None:
    features = features_of(module)
    for level in features:
        _check_level(level)
    strides = [level.stride for level in features]
    if not strides or strides != sorted(set(strides)):
        raise BrokenError(f"features: expected strides that rise, found {strides}")
    multiple = getattr(module, "size_multiple", 1)
    if type(multiple) is not int or multiple < 1:
        raise BrokenError(f"size_multiple: expected a whole number from 1 on, found {multiple!r}")
    for name in ("mean", "std"):
        given = getattr(module, name, None)
        if given is None:
            continue
        values = tuple(given)
        low_enough = all(isinstance(v, float) and 0 <= v <= 1 for v in values)
        if len(values) != 3 or not low_enough or (name == "std" and min(values) <= 0):
            raise BrokenError(f"{name}: expected three floats on the scale 0..1, found {given!r}")
    backbone = getattr(module, "backbone", module)
    if not any(part is backbone for part in module.modules()):
        raise BrokenError(f"backbone: expected a part of the encoder, found {type(backbone).__name__}")


def _check_level(level: FeatureMap) -> None:
    for name in ("channels", "stride"):
        value = getattr(level, name)
        if type(value) is not int or value < 1:
            raise BrokenError(f"{level}: expected {name} to be a whole number from 1 on, found {value!r}")


def check_random_start(subject: Subject) -> Found:
    """Two seeds must give two sets of weights, and no connection may be opened on the way."""
    with _no_network() as tried:
        try:
            (one, state), (other, other_state) = (_built(subject, seed) for seed in (0, 1))
        finally:
            if tried:
                raise BrokenError(f"build opens a connection to {tried[0]}")
    if torch.equal(state, other_state):
        raise BrokenError("build sets torch's seed: random numbers after it are the same whatever the user's seed is")
    same = total = 0
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        if first.shape == second.shape and first.numel() > 1 and first.min() != first.max():
            total += first.numel()
            same += int((first == second).sum())
    if same * 2 > total:
        raise BrokenError(f"{same / total:.0%} of the weights are the same whatever torch's seed is")
    return Found("two seeds, two sets of weights" if total else "no random weights")


def _built(subject: Subject, seed: int) -> tuple[nn.Module, Tensor]:
    """The part's module, and the state of torch's random numbers after its build."""
    partner, its = subject.partner
    with seeded(seed):
        encoder, decoder = subject.join(partner, its, subject.section)
        return encoder if subject.part.kind == "encoder" else decoder, torch.get_rng_state()


@contextmanager
def _no_network() -> Iterator[list[str]]:
    """Inside, connections to other machines are refused; yields where they wanted to go.

    Looking a name up is one too: where there is no DNS, nothing comes after it.
    """
    tried: list[str] = []

    def refuse(host: Any) -> NoReturn:
        tried.append(str(host))
        raise OSError("segdeploy's conformance kit: build opens no connection")

    def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
        def instead(self: socket.socket, address: Any) -> Any:
            return connect(self, address) if self.family == getattr(socket, "AF_UNIX", None) else refuse(address[0])

        return instead

    with ExitStack() as stack, torch.no_grad():
        for name in ("connect", "connect_ex"):
            stack.enter_context(patch.object(socket.socket, name, guarded(getattr(socket.socket, name))))
        stack.enter_context(patch.object(socket, "getaddrinfo", lambda host, *more, **options: refuse(host)))
        yield tried


RULES = (
    Rule(
        name="build",
        kinds=("encoder", "decoder"),
        sentence="build gives an nn.Module that says what it is: features or out, and whatever else it declares.",
        fix="Set features (encoder) or out (decoder) on the module as the contract says: FeatureMap(channels=, "
        "stride=), strides rising. Refuse levels that do not fit by raising segdeploy.errors.ConfigError; where no "
        "partner fits, name one with --with.",
        check=check_build,
        needs=("config-defaults",),
    ),
    Rule(
        name="build-reads-no-weights",
        kinds=("encoder", "decoder"),
        sentence="build gives random weights, from torch's generator, and opens no connection.",
        fix="Load trained weights in load_pretrained: build is also called to rebuild a model whose weights are at "
        "hand, on machines without a network. Never call torch.manual_seed.",
        check=check_random_start,
        needs=("build",),
    ),
)
