"""Weights of transformers' SegFormer models in a Mix Transformer: their names, their checks, the hub."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from segdeploy.encoders.hub_files import CONFIG_FILE, SAFETENSORS, TORCH, fit, read_json, read_weights
from segdeploy.encoders.mit_table import PER_STAGE
from segdeploy.encoders.pretrained import loading
from segdeploy.errors import MissingPartError, SegdeployError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segdeploy.encoders.mit import MixTransformer

log = logging.getLogger(__name__)

# From our names to those of the files that save_pretrained writes, and to those of transformers 5's modules.
_IN_FILES = (
    (r"^stages\.(\d+)\.(patch_embeddings|layer_norm)", r"\2.\1"),
    (r"^stages\.(\d+)\.blocks", r"block.\1"),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"attention\.reduce_norm", "attention.self.layer_norm"),
    (r"attention\.reduce", "attention.self.sr"),
    (r"layernorm_before", "layer_norm_1"),
    (r"layernorm_after", "layer_norm_2"),
    (r"mlp\.fc", "mlp.dense"),
    (r"mlp\.dwconv", "mlp.dwconv.dwconv"),
)
_IN_MODULES = (
    (r"attention\.reduce_norm", "attention.sequence_reduction.layer_norm"),
    (r"attention\.reduce", "attention.sequence_reduction.sequence_reduction"),
    (r"mlp\.dwconv", "mlp.dwconv.dwconv"),
)
# A model with a head, then the bare one.
_LAYOUTS = (
    ("segformer.encoder.", _IN_FILES),
    ("encoder.", _IN_FILES),
    ("segformer.stages.", _IN_MODULES),
    ("stages.", _IN_MODULES),
)


def encoder_state(tensors: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's part of a SegFormer checkpoint under the names of `encoder`; heads are left out.

    Raises:
        MissingPartError: a name that is missing, that the encoder has no place for, or a tensor of another shape.
    """
    layout = next(((p, names) for p, names in _LAYOUTS if any(k.startswith(p) for k in tensors)), None)
    if layout is None:
        found = ", ".join(list(tensors)[:3]) or "none"
        raise MissingPartError(f"expected a SegFormer's names (segformer.encoder..., encoder...), found {found}")
    prefix, names = layout
    root = prefix.removesuffix("stages.")
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return fit(own, encoder.state_dict(), lambda name: root + rename(name, names))


def name_in_file(name: str) -> str:
    """Our name of an encoder's tensor as `save_pretrained` spells it, without the prefix of the whole model."""
    return "encoder." + rename(name, _IN_FILES)


def rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    """`name` after each pattern of `table` is replaced, in turn."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def load_local(encoder: MixTransformer, weights: str) -> None:
    """A file, or a folder of `save_pretrained`, into `encoder` in place, or not at all.

    Raises:
        MissingPartError: not there, not readable, or of another network; the message names the file.
    """
    path = Path(weights)
    try:
        if (config := path / CONFIG_FILE).is_file():
            _check_numbers(config, encoder)
        tensors = read_weights(path)
    except SegdeployError as e:
        raise MissingPartError(f"encoder.weights: {e}") from e
    _load(encoder, tensors, f"encoder.weights: {path}")


def load_hub(encoder: MixTransformer, repository: str) -> None:
    """NVIDIA's weights of `repository` from the hub's cache or the hub into `encoder` in place, with a warning.

    Raises:
        MissingPartError: they are not to be had.
    """
    what = f"encoder.use_pretrained: {repository}"
    with loading(what, "FILE_OR_FOLDER"):
        file = _fetch(repository)
    _load(encoder, read_weights(file), what)
    log.warning(
        "%s: these weights are NVIDIA's, for research and evaluation only; use_pretrained: false does without", what
    )


def _fetch(repository: str) -> Path:
    try:
        return Path(hf_hub_download(repository, SAFETENSORS))
    except EntryNotFoundError:  # also what an offline cache without it says
        return Path(hf_hub_download(repository, TORCH))


def _load(encoder: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    try:
        state = encoder_state(tensors, encoder)
    except MissingPartError as e:
        raise MissingPartError(f"{what}: {e}") from e
    encoder.load_state_dict(state)
    log.info("%s: pretrained weights loaded", what)


def _check_numbers(file: Path, encoder: MixTransformer) -> None:
    """What shapes do not tell, such as the number of heads, stands in config.json."""
    found = read_config(file)
    for key in PER_STAGE:
        ours = list(getattr(encoder.config, key))
        if (theirs := found.get(key, ours)) != ours:
            raise MissingPartError(f"{file}: {key}: expected this encoder's {ours}, found {theirs}")


def read_config(file: Path) -> dict[str, Any]:
    """A config.json of transformers.

    Raises:
        MissingPartError: it is no JSON object, or of another kind of model than a SegFormer.
    """
    config = read_json(file)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "segformer":
        raise MissingPartError(f"{file}: model_type: expected segformer, found {kind}")
    known: dict[str, Any] = config
    return known
