"""A timm model inside an encoder, and where its trained weights come from: a file, the local cache, or the hub."""

from __future__ import annotations

import difflib
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from torch import nn

from segdeploy.errors import ConfigError, MissingPartError, first_line
from segdeploy.plugin import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)


class PretrainedSection(Section):
    """Keys of every encoder that can start from trained weights."""

    use_pretrained: bool = True
    """Start from timm's weights, from its local cache or the hub."""
    weights: str | None = None
    """A local .safetensors file in timm's format to start from instead; relative to the working directory."""
    trainable: bool = True
    """false: the encoder keeps its weights and its normalisation statistics while the decoder learns."""


class TimmModel(nn.Module):
    """Base of the encoders around a timm model, `body`: its name, its normalisation, its weights."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, model_name: str) -> None:
        super().__init__()
        self.model_name = model_name
        if said := unknown_name(model_name):
            raise ConfigError(f"encoder.model_name: {said}")
        self.body: Any
        try:
            self.body = self.create(pretrained=False)
        except (RuntimeError, AttributeError, LookupError, AssertionError, NotImplementedError) as e:
            raise ConfigError(f"encoder.model_name: {model_name} gives no feature maps: {first_line(e)}") from e
        cfg = self.body.pretrained_cfg
        self.mean = tuple(float(v) for v in cfg.get("mean", (0.485, 0.456, 0.406)))
        self.std = tuple(float(v) for v in cfg.get("std", (0.229, 0.224, 0.225)))

    def create(self, **options: Any) -> nn.Module:
        """A new `body`; `options` go to `timm.create_model` (pretrained, pretrained_cfg_overlay)."""
        raise NotImplementedError


def unknown_name(model_name: str) -> str:
    """What is said of a name that timm does not have; empty where it has it."""
    if "/" in model_name or ":" in model_name:  # timm would read hf-hub:... from the hub, local-dir:... from the disk
        return f"expected a name of timm's own, without / and :, found {model_name!r}"
    if timm.is_model(model_name):
        return ""
    plain, known = model_name.split(".")[0], timm.list_models()
    near = timm.list_models(f"*{plain}*")[:3] or difflib.get_close_matches(plain, known, 3, 0.75)
    return f"timm has no model {model_name!r}; " + (f"it has {', '.join(near)}" if near else "see timm.list_models()")


def load_pretrained(module: nn.Module, config: PretrainedSection) -> None:
    """Weights from `config.weights`, or timm's own from cache or hub, into the encoder in place.

    Raises:
        MissingPartError: no such file, a file for another model, or no weights at hand and no network.
    """
    assert isinstance(module, TimmModel)
    if config.weights is not None:
        _load_file(module, Path(config.weights))
    elif config.use_pretrained:
        _load_hub(module)


def _load_file(module: TimmModel, path: Path) -> None:
    if not path.is_file():
        raise MissingPartError(f"encoder.weights: {path}: no such file")
    if path.suffix != ".safetensors":
        raise MissingPartError(
            f"encoder.weights: {path}: expected a .safetensors file (other formats can run code when read)"
        )
    _load_with(module, pretrained_cfg_overlay={"file": str(path)}, what=f"encoder.weights: {path}")


def _load_hub(module: TimmModel) -> None:
    cfg = timm.models.get_pretrained_cfg(module.model_name)
    if not cfg or not cfg.has_weights:
        raise MissingPartError(
            f"encoder.use_pretrained: timm has no trained weights for {module.model_name}; "
            "set use_pretrained: false, or weights: FILE.safetensors"
        )
    _load_with(module, pretrained_cfg_overlay=None, what=f"encoder.use_pretrained: {module.model_name}")


def _load_with(module: TimmModel, pretrained_cfg_overlay: dict[str, str] | None, what: str) -> None:
    # timm maps a checkpoint's keys to those of the built model by itself, so it builds the copy to read from.
    with loading(what, "FILE.safetensors"):
        loaded = module.create(pretrained=True, pretrained_cfg_overlay=pretrained_cfg_overlay)
    module.body.load_state_dict(loaded.state_dict())
    log.info("%s: pretrained weights loaded", module.model_name)


@contextmanager
def loading(what: str, instead: str) -> Iterator[None]:
    """Whatever goes wrong inside is one MissingPartError: `what` could not be loaded, and `instead` can be given."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it reports every retry; the one line below says all of it
    try:
        yield
    except Exception as e:  # hub, cache, network and file errors have no common base
        raise MissingPartError(
            f"{what}: the weights could not be loaded ({type(e).__name__}: {first_line(e)[:160]}); "
            f"set use_pretrained: false, or weights: {instead}"
        ) from e
    finally:
        hub.setLevel(level)
