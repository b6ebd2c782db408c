"""A `save_pretrained` folder of segmentation_models.pytorch (https://github.com/qubvel-org/segmentation_models.pytorch)
as a model of segdeploy: the same network under our names. The library itself is not needed."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import timm
import torch

from segdeploy.classes import ClassMap, default_colors
from segdeploy.encoders import mit_table
from segdeploy.encoders.hub_files import CONFIG_FILE, read_weights
from segdeploy.encoders.timm import TimmEncoder
from segdeploy.errors import ConfigError, MissingPartError, ModelError
from segdeploy.importing.parts import ONE_LOGIT, fitted, part_of
from segdeploy.importing.smp_config import OTHERWISE, Names, RefusedError, SmpModel, Strides, parse
from segdeploy.model.segmenter import IMAGENET_MEAN, IMAGENET_STD
from segdeploy.model.spec import Head, ModelSpec, Preprocessing
from segdeploy.plugin import registry

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from segdeploy.importing.imported import Imported

_RESNETS = re.compile(r"(resnet(18|34|50|101|152)|resnext(50|101)_\d+x\d+d)")
"""Of smp's own encoders those that timm has under the same name, with the same names of weights."""

_MIT = tuple(
    (rf"^encoder\.{theirs}", f"encoder.stages.{stage}.{ours}")
    for stage in range(4)
    for theirs, ours in (
        (rf"patch_embed{stage + 1}\.proj\.", "patch_embeddings.proj."),
        (rf"patch_embed{stage + 1}\.norm\.", "patch_embeddings.layer_norm."),
        (rf"norm{stage + 1}\.", "layer_norm."),
        (rf"block{stage + 1}\.(\d+)\.norm1\.", r"blocks.\1.layernorm_before."),
        (rf"block{stage + 1}\.(\d+)\.norm2\.", r"blocks.\1.layernorm_after."),
        (rf"block{stage + 1}\.(\d+)\.attn\.(q|k|v)\.", r"blocks.\1.attention.\2_proj."),
        (rf"block{stage + 1}\.(\d+)\.attn\.proj\.", r"blocks.\1.attention.o_proj."),
        (rf"block{stage + 1}\.(\d+)\.attn\.sr\.", r"blocks.\1.attention.reduce."),
        (rf"block{stage + 1}\.(\d+)\.attn\.norm\.", r"blocks.\1.attention.reduce_norm."),
        (rf"block{stage + 1}\.(\d+)\.mlp\.fc", r"blocks.\1.mlp.fc"),
        (rf"block{stage + 1}\.(\d+)\.mlp\.dwconv\.dwconv\.", r"blocks.\1.mlp.dwconv."),
    )
)


@dataclass(frozen=True)
class _Encoder:
    name: str
    config: dict[str, Any]
    strides: Strides
    names: Names
    unused: str = r"(?!)"
    """Pattern of the weights that its depth leaves out."""


def read_smp(folder: Path, content: dict[str, Any], size: tuple[int, int]) -> Imported:
    """Read the folder whose config.json holds `content`.

    Args:
        folder: what `save_pretrained` wrote.
        content: its config.json.
        size: (height, width) of the network's input, which the folder does not tell.

    Raises:
        ModelError: a network that segdeploy cannot rebuild, or weights of another one.
        MissingPartError: a decoder or weights that are not there.
        ConfigError: a size at which the original does not work.
    """
    file = folder / CONFIG_FILE
    config = parse(content, file)
    _check_size(size)
    try:
        encoder = _encoder_of(config)
        decoder, keys = config.decoder(encoder.strides)
    except RefusedError as e:
        raise ModelError(f"{file}: {e}; {OTHERWISE}") from e
    if decoder not in registry.catalogue("decoder").plugins and config.distribution:
        raise MissingPartError(
            f"{file}: {content['_model_class']} needs the package {config.distribution}; {_where(config.distribution)}"
        )
    names, notes = _classes_of(config)
    spec = ModelSpec(
        encoder=part_of("encoder", encoder.name, encoder.config, file),
        decoder=part_of("decoder", decoder, keys, file),
        head=Head(kernel_size=config.kernel_size, align_corners=config.align_corners),
        classes=ClassMap(names=names, colors=default_colors(len(names))),
        preprocessing=Preprocessing(
            height=size[0], width=size[1], resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
    )
    tensors = _apart(read_weights(folder))
    table = (*encoder.names, *config.names(encoder.strides), (r"^segmentation_head\.0\.", "head."))
    state = {_rename(name, table): tensor for name, tensor in tensors.items() if not re.match(encoder.unused, name)}
    if config.aux_params is not None:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classification_head.")}
        notes.append("the classification head (aux_params) is left out: segdeploy gives masks alone")
    if config.classes == 1:
        for name in ("head.weight", "head.bias"):
            if name in state:
                state[name] = torch.cat([torch.zeros_like(state[name]), state[name]])
    return fitted(spec, state, tuple(notes), folder)


def _where(distribution: str) -> str:
    """What to do for a decoder that is not there: install its package, or let it load."""
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return f"pip install {distribution}"
    return f"{version} is installed{registry.may_hold(('decoder',))}"


def _check_size(size: tuple[int, int]) -> None:
    # The original refuses others, or rounds in its own way.
    if any(side % 32 for side in size):
        near = "x".join(str(max(32, round(side / 32) * 32)) for side in size[::-1])
        raise ConfigError(
            f"--height {size[0]} --width {size[1]}: expected multiples of 32, which networks of "
            f"segmentation_models.pytorch take; the nearest size (width x height) is {near}"
        )


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys and values of Mix Transformers in tensors of their own; they lie one upon the other."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".attn.kv." in name and name.startswith("encoder.block"):
            found |= {name.replace(".kv.", f".{x}."): half for x, half in zip("kv", tensor.chunk(2), strict=True)}
        else:
            found[name] = tensor
    return found


def _rename(name: str, table: Names) -> str:
    for pattern, replacement in table:
        name, found = re.subn(pattern, replacement, name, count=1)
        if found:
            return name
    return name


def _encoder_of(config: SmpModel) -> _Encoder:
    name, depth = config.encoder_name, config.encoder_depth
    if name.startswith("tu-") and ":" not in name:
        return _timm(name.removeprefix("tu-"), depth, config.output_stride, ((r"^encoder\.model\.", "encoder.body."),))
    resnet = _RESNETS.fullmatch(name) is not None and timm.is_model(name)
    mix = name in mit_table.PRESETS and depth == 5
    if (resnet or mix) and 1 << depth > config.output_stride:
        raise RefusedError(
            f"encoder_name: expected tu-NAME (a model of timm), found {name}, which smp dilates in a way of its own"
        )
    if resnet:
        # The whole network lies in the file, whatever the depth.
        return _timm(name, depth, 32, ((r"^encoder\.", "encoder.body."),), rf"encoder\.layer[{depth}-9]\.")
    if mix:
        # The authors' code, which smp has, normalises with another epsilon than transformers.
        preset = mit_table.PRESETS[name].model_copy(update={"layer_norm_eps": 1e-6})
        return _Encoder("mit", preset.model_dump(mode="json"), (4, 8, 16, 32), _MIT)
    raise RefusedError(
        f"encoder_name: expected tu-NAME (a model of timm), resnet, resnext or mit (of depth 5), found {name}"
    )


def _timm(name: str, depth: int, output_stride: int, names: Names, unused: str = r"(?!)") -> _Encoder:
    try:
        probe = TimmEncoder(name)
    except ConfigError as e:
        raise RefusedError(f"encoder_name: {str(e).removeprefix('encoder.model_name: ')}") from e
    strides = tuple(f.stride for f in probe.features)
    places = tuple(probe.body.feature_info.out_indices)
    first = strides[0]
    if first > 4 or any(s != first << i for i, s in enumerate(strides)):
        raise RefusedError(f"encoder_name: expected strides 1, 2, 4, ... or from 2 or 4 on, {name} has {strides}")
    # The depth counts from stride 2 on, whether there is such a level or not; one of stride 1 is never joined.
    used = slice(1, depth + 1) if first == 1 else slice(0, depth if first == 2 else depth - 1)
    keys: dict[str, Any] = {"model_name": name, "use_pretrained": False, "output_stride": output_stride}
    if places[used] != places:
        keys["out_indices"] = list(places[used])
    return _Encoder("timm", keys, strides[used], names, unused)


def _classes_of(config: SmpModel) -> tuple[tuple[str, ...], list[str]]:
    if config.classes == 1:
        return ("background", "foreground"), [ONE_LOGIT]
    return tuple(f"class_{i}" for i in range(config.classes)), ["the folder tells no names of classes; see --classes"]
