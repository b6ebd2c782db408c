"""All that a plugin's author imports."""

from segdeploy.plugin.contract import (
    Availability,
    BackendPlugin,
    DecoderPlugin,
    EncoderPlugin,
    FeatureMap,
    Section,
)
from segdeploy.plugin.hookspecs import hookimpl

__all__ = ["Availability", "BackendPlugin", "DecoderPlugin", "EncoderPlugin", "FeatureMap", "Section", "hookimpl"]
