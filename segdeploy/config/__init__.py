"""What the user wrote: YAML in, a checked and immutable RunConfig out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.config.load import choose_config, config_from_dict, load_config, parse_config
    from segdeploy.config.schema import RunConfig

__all__ = ["RunConfig", "choose_config", "config_from_dict", "load_config", "parse_config"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported when it is asked for: whoever runs a bundle needs the types of single keys alone
        from segdeploy.config import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
