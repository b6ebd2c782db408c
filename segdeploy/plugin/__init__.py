"""All that a plugin's author imports."""

from segdeploy.plugin.contract import (
    Auxiliary,
    Availability,
    BackendPlugin,
    DecoderPlugin,
    EncoderPlugin,
    FeatureMap,
    Section,
)
from segdeploy.plugin.hookspecs import hookimpl

__all__ = [
    "Auxiliary",
    "Availability",
    "BackendPlugin",
    "DecoderPlugin",
    "EncoderPlugin",
    "FeatureMap",
    "Section",
    "hookimpl",
]
