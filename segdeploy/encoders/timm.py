"""Encoder `timm`: any timm model that can give a pyramid (`features_only`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from pydantic import Field
from torch import Tensor, nn

from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.plugin import EncoderPlugin, FeatureMap, Section, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class PretrainedSection(Section):
    """Keys of every encoder that can start from trained weights."""

    use_pretrained: bool = True
    """Start from timm's weights, from its local cache or the hub."""
    weights: str | None = None
    """A local .safetensors file in timm's format to start from instead."""
    trainable: bool = True
    """false: the encoder keeps its weights and its normalisation statistics while the decoder learns."""


class TimmConfig(PretrainedSection):
    """Any timm model with `features_only`."""

    model_name: str = Field(min_length=1)
    """timm's name, such as mobilenetv3_large_100 or resnet50.a1_in1k; see `timm.list_models()`."""


class TimmEncoder(nn.Module):
    """A timm model as a pyramid: (N, 3, H, W) -> one (N, C_i, H / s_i, W / s_i) per level."""

    def __init__(self, model_name: str) -> None:
        super().__init__()
        self.model_name = model_name
        if not timm.is_model(model_name.split("/")[-1]):
            near = timm.list_models(f"*{model_name.split('.')[0]}*")[:3]
            hint = f"; timm has {', '.join(near)}" if near else "; see timm.list_models()"
            raise ConfigError(f"encoder.model_name: timm has no model {model_name!r}{hint}")
        self.body: Any
        try:
            self.body = timm.create_model(model_name, pretrained=False, features_only=True)
        except (RuntimeError, AttributeError, KeyError, AssertionError, NotImplementedError) as e:
            raise ConfigError(
                f"encoder.model_name: {model_name} gives no feature maps: {str(e).splitlines()[0]}"
            ) from e
        info = self.body.feature_info
        levels = zip(info.channels(), info.reduction(), strict=True)
        self.features = tuple(FeatureMap(channels=int(c), stride=int(s)) for c, s in levels)
        strides = [f.stride for f in self.features]
        if len(set(strides)) != len(strides) or strides != sorted(strides):
            raise ConfigError(
                f"encoder.model_name: {model_name} gives maps of strides {strides}; "
                "a pyramid with rising strides is needed"
            )
        cfg = self.body.pretrained_cfg
        self.mean = tuple(float(v) for v in cfg.get("mean", (0.485, 0.456, 0.406)))
        self.std = tuple(float(v) for v in cfg.get("std", (0.229, 0.224, 0.225)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) float, normalised -> feature maps, finest first."""
        return tuple(
            m if is_nchw(m, f) else m.permute(0, 3, 1, 2) for m, f in zip(self.body(image), self.features, strict=True)
        )


def is_nchw(feature: Tensor, declared: FeatureMap) -> bool:
    """Swin and its kin give (N, H, W, C); tell by where the declared channels are."""
    return feature.shape[1] == declared.channels


def load_pretrained(module: nn.Module, config: PretrainedSection) -> None:
    """Weights from `config.weights`, or timm's own from cache or hub, into the encoder in place.

    Raises:
        MissingPartError: no such file, a file for another model, or no weights at hand and no network.
    """
    assert isinstance(module, TimmEncoder)
    if config.weights is not None:
        _load_file(module, Path(config.weights))
    elif config.use_pretrained:
        _load_hub(module)


def _load_file(module: TimmEncoder, path: Path) -> None:
    if not path.is_file():
        raise MissingPartError(f"encoder.weights: {path}: no such file")
    if path.suffix != ".safetensors":
        raise MissingPartError(
            f"encoder.weights: {path}: expected a .safetensors file (other formats can run code when read)"
        )
    _load_with(module, pretrained_cfg_overlay={"file": str(path)}, what=f"encoder.weights: {path}")


def _load_hub(module: TimmEncoder) -> None:
    if not timm.models.get_pretrained_cfg(module.model_name):
        raise MissingPartError(
            f"encoder.use_pretrained: timm has no trained weights for {module.model_name}; "
            "set use_pretrained: false, or weights: FILE.safetensors"
        )
    _load_with(module, pretrained_cfg_overlay=None, what=f"encoder.use_pretrained: {module.model_name}")


def _load_with(module: TimmEncoder, pretrained_cfg_overlay: dict[str, str] | None, what: str) -> None:
    # timm maps the classifier's keys to those of `features_only` by itself, so it builds the copy to read from.
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it reports every retry; the one line below says all of it
    try:
        loaded = timm.create_model(
            module.model_name, pretrained=True, features_only=True, pretrained_cfg_overlay=pretrained_cfg_overlay
        )
    except Exception as e:  # hub, cache, network and file errors have no common base
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise MissingPartError(
            f"{what}: the weights could not be loaded ({type(e).__name__}: {first[:160]}); "
            "set use_pretrained: false, or weights: FILE.safetensors"
        ) from e
    finally:
        hub.setLevel(level)
    module.body.load_state_dict(loaded.state_dict())
    log.info("%s: pretrained weights loaded", module.model_name)


def build(config: TimmConfig) -> TimmEncoder:
    """The encoder with random weights."""
    return TimmEncoder(config.model_name)


@hookimpl
def segdeploy_register_encoders(register: Callable[[EncoderPlugin], None]) -> None:
    """Register `timm`."""
    register(
        EncoderPlugin(
            name="timm",
            summary="any timm model with features_only, by model_name",
            config=TimmConfig,
            build=build,
            load_pretrained=load_pretrained,
        )
    )
