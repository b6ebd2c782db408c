"""All that a plugin's author imports. The names are loaded when they are asked for: pytest imports this package in
every run beside which segdeploy is installed, for `segdeploy.plugin.testing`, and need not wait for pydantic."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.plugin.contract import (
        Auxiliary,
        Availability,
        BackendPlugin,
        DecoderPlugin,
        EncoderPlugin,
        FeatureMap,
        Section,
        Tracker,
        TrackerPlugin,
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
    "Tracker",
    "TrackerPlugin",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from segdeploy.plugin import contract, hookspecs

        return getattr(hookspecs if name == "hookimpl" else contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
