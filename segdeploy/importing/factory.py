"""Any network that a Python function makes, as a model of segdeploy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from segdeploy.classes import MAX_CLASSES, ClassMap, default_colors
from segdeploy.encoders.factory import FactoryNetwork, call, trust
from segdeploy.encoders.hub_files import read_weights
from segdeploy.errors import ConfigError, first_line
from segdeploy.importing.parts import ONE_LOGIT, fitted, part_of
from segdeploy.model.segmenter import IMAGENET_MEAN, IMAGENET_STD
from segdeploy.model.spec import Head, ModelSpec, Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from segdeploy.importing.imported import Imported


def read_factory(function: str, weights: Path | None, size: tuple[int, int], *, align_corners: bool) -> Imported:
    """Call the function, which is trusted from here on in this process, and see what its network gives.

    Args:
        function: `package.module:function`, without arguments, makes an `nn.Module` from a normalised image
            (N, 3, H, W) to logits, see `FactoryNetwork`.
        weights: its state dict, .safetensors or torch's own; None: the weights that the function gives it.
        size: (height, width) of its input.
        align_corners: how logits that are smaller than the image are brought to its size.

    Raises:
        ConfigError, MissingPartError: see `call`; or a network that does not work at this size.
        ModelError: weights of another network.
    """
    part_of("encoder", "factory", {"function": function, "channels": 1}, "--factory")
    trust(function)
    network = call(function).eval()
    try:
        with torch.inference_mode():
            (logits,) = FactoryNetwork(network, 1, 1)(torch.zeros(1, 3, *size))
    except ConfigError:
        raise
    except Exception as e:  # the user's code may fail in any way
        said = f"the network cannot take a {size[1]}x{size[0]} image: {first_line(e)}"
        raise ConfigError(f"--factory {function}: {said}") from e
    if not 1 <= logits.shape[1] <= MAX_CLASSES or 0 in logits.shape:
        raise ConfigError(
            f"--factory {function}: expected logits (1, C, H, W) of 1 to {MAX_CLASSES} classes, "
            f"found the shape {tuple(logits.shape)}"
        )
    channels, stride = logits.shape[1], max(1, round(size[0] / logits.shape[2]))
    kind: Literal["conv", "none"] = "conv" if channels == 1 else "none"
    classes = max(2, channels)
    spec = ModelSpec(
        encoder=part_of(
            "encoder", "factory", {"function": function, "channels": channels, "stride": stride}, "--factory"
        ),
        decoder=part_of("decoder", "logits", {}, "--factory"),
        head=Head(kind=kind, align_corners=align_corners),
        classes=ClassMap(names=tuple(f"class_{i}" for i in range(classes)), colors=default_colors(classes)),
        preprocessing=Preprocessing(
            height=size[0], width=size[1], resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
    )
    if weights is None:
        given, notes = network.state_dict(), [f"the weights are those that {function} gives the network"]
    else:
        given, notes = _without_prefix(read_weights(weights), set(network.state_dict()))
    state = {f"encoder.network.{name}": tensor for name, tensor in given.items()}
    if channels == 1:
        state |= {"head.weight": torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), "head.bias": torch.zeros(2)}
        notes.append(ONE_LOGIT)
    return fitted(spec, state, tuple(notes), weights or function)


def _without_prefix(given: dict[str, Tensor], wanted: set[str]) -> tuple[dict[str, Tensor], list[str]]:
    """`given` under the network's names, and notes, where a trainer or a wrapper has put a prefix before them all.

    Such a trainer may hold tensors of its own, a loss's for one; they are left out.
    """
    one = next(iter(wanted), "")
    for prefix in (name.removesuffix(one) for name in given if name.endswith(f".{one}")):
        bare = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
        if wanted <= bare.keys():
            others = [name for name in given if not name.startswith(prefix)]
            notes = [f"the weights' names begin with {prefix!r}, which is left out"]
            return bare, notes + ([f"left out: {len(others)} tensor(s) such as {others[0]}"] if others else [])
    return given, []
