"""Rules about the maps that a part gives, at three sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segdeploy.conformance.rule import BrokenError, Found, Rule, SkippedError
from segdeploy.model.segmenter import aux_of, features_of, out_of

if TYPE_CHECKING:
    from segdeploy.conformance.subject import Subject

_BATCH = 2


def check_levels(subject: Subject) -> Found:
    """An encoder's maps against its `features`."""
    encoder = subject.assemble().encoder.eval()
    declared = features_of(encoder)
    for size in subject.sizes:
        with torch.no_grad(), subject.blame(f"forward at {_text(size)}"):
            maps = encoder(subject.images(_BATCH, size))
            maps = tuple(maps)
        if len(maps) != len(declared):
            raise BrokenError(f"{len(declared)} levels are declared, {len(maps)} come at {_text(size)}")
        for place, (level, found) in enumerate(zip(declared, maps, strict=True)):
            _check_map(f"level {place}", found, level.channels, level.stride, size)
    strides = ", ".join(str(level.stride) for level in declared)
    return Found(f"strides {strides} at {', '.join(map(_text, subject.sizes))}")


def check_output(subject: Subject) -> Found:
    """A decoder's map against its `out` and the level of that stride."""
    model = subject.assemble().eval()
    out = out_of(model.decoder)
    strides = [level.stride for level in features_of(model.encoder)]
    for size in subject.sizes:
        with torch.no_grad():
            maps = model.encoder(subject.images(_BATCH, size))
            with subject.blame(f"forward at {_text(size)}"):
                found = model.decoder(maps)
        _check_map("out", found, out.channels, out.stride, size)
        if out.stride in strides and found.shape[2:] != maps[strides.index(out.stride)].shape[2:]:
            wanted = tuple(maps[strides.index(out.stride)].shape[2:])
            raise BrokenError(
                f"out at {_text(size)}: the level of stride {out.stride} is {_text(wanted)}, out is "
                f"{_text(tuple(found.shape[2:]))}"
            )
    return Found(f"{out.channels} channels at stride {out.stride}, at {', '.join(map(_text, subject.sizes))}")


def _check_map(what: str, found: Any, channels: int, stride: int, size: tuple[int, int]) -> None:
    where = f"{what} at {_text(size)}"
    if not isinstance(found, Tensor) or found.dtype != torch.float32 or found.ndim != 4:
        said = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise BrokenError(f"{where}: expected float32 (N, C, H, W), found {said}")
    if tuple(found.shape[:2]) != (_BATCH, channels):
        raise BrokenError(f"{where}: {channels} channels are declared, found {tuple(found.shape)}")
    for side, full in zip(found.shape[2:], size, strict=True):
        # Strided convolutions round up, patch embeddings down.
        if not full // stride <= side <= -(-full // stride):
            raise BrokenError(f"{where}: stride {stride} is declared, found {_text(tuple(found.shape[2:]))}")
    if not torch.isfinite(found).all():
        raise BrokenError(f"{where}: holds values that are not finite")


def check_auxiliary(subject: Subject) -> Found:
    """`forward_aux` against `aux`, and its first item against `forward`."""
    model = subject.assemble().eval()
    module: Any = subject.half(model)
    declared = aux_of(module)
    if not declared:
        raise SkippedError("it declares no auxiliary maps")
    for entry in declared:
        if not entry.weight > 0:
            raise BrokenError(f"{entry}: expected a weight above 0")
    for size in subject.sizes:
        with torch.no_grad(), subject.blame(f"forward_aux at {_text(size)}"):
            image = subject.images(_BATCH, size)
            given = image if subject.part.kind == "encoder" else model.encoder(image)
            plain = module(given)
            both = module.forward_aux(given)
        if not (isinstance(both, tuple) and len(both) == 2 and isinstance(both[1], (tuple, list))):
            raise BrokenError("forward_aux: expected a pair, what forward gives and a tuple of maps")
        first, maps = both
        if len(maps) != len(declared):
            raise BrokenError(f"{len(declared)} auxiliary maps are declared, {len(maps)} come at {_text(size)}")
        for place, (entry, found) in enumerate(zip(declared, maps, strict=True)):
            _check_map(f"auxiliary map {place}", found, entry.channels, entry.stride, size)
        pairs = [(plain, first)] if isinstance(plain, Tensor) else list(zip(plain, first, strict=True))
        if not all(torch.equal(a, b) for a, b in pairs):
            raise BrokenError(f"at {_text(size)} the first item of forward_aux is not what forward gives")
    return Found(f"{len(declared)} auxiliary maps")


def check_input_kept(subject: Subject) -> Found:
    """The tensors that go in are the same afterwards."""
    model = subject.assemble().eval()
    with torch.no_grad():
        image = subject.images(_BATCH, subject.sizes[-1])
        given = (image,)
        if subject.part.kind == "decoder":  # values of both signs: a second ReLU would leave a partner's as they are
            given = tuple(x - x.mean() for x in model.encoder(image))
        before = [x.clone() for x in given]
        with subject.blame("forward"):
            subject.half(model)(given[0] if subject.part.kind == "encoder" else given)
    changed = [str(i) for i, (a, b) in enumerate(zip(before, given, strict=True)) if not torch.equal(a, b)]
    if changed:
        what = "the image" if subject.part.kind == "encoder" else f"level {', '.join(changed)}"
        raise BrokenError(f"forward overwrites {what}")
    return Found()


def _text(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


RULES = (
    Rule(
        name="levels",
        kinds=("encoder",),
        sentence="The maps of forward are the declared features, at three sizes, odd ones among them.",
        fix="Declare in features the channels and strides that forward gives, finest first. An encoder that takes "
        "only some sizes says so with size_multiple.",
        check=check_levels,
        needs=("build",),
    ),
    Rule(
        name="output",
        kinds=("decoder",),
        sentence="The map of forward is the declared out, of the size of its level, at three sizes, odd ones too.",
        fix="Declare in out the real channels and stride. Resize by size=level.shape[-2:] and never by scale_factor: "
        "factors miss odd sizes by one.",
        check=check_output,
        needs=("build",),
    ),
    Rule(
        name="auxiliary",
        kinds=("encoder", "decoder"),
        sentence="forward_aux gives what forward gives, and one map for each declared Auxiliary.",
        fix="Return (x, (map, ...)), with one map for each Auxiliary even where there is one alone. Declare in aux the "
        "channels and strides that forward_aux gives; compute its first item as forward does.",
        check=check_auxiliary,
        needs=("levels", "output"),
    ),
    Rule(
        name="input-kept",
        kinds=("encoder", "decoder"),
        sentence="forward leaves the tensors that it is given as they are.",
        fix="Do not write in place (relu_, +=, inplace=True) to the image or to a level; others read them too.",
        check=check_input_kept,
        needs=("levels", "output"),
    ),
)
