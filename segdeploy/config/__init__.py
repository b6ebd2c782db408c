"""What the user wrote: YAML in, a checked and immutable RunConfig out."""

from segdeploy.config.load import choose_config, config_from_dict, load_config, parse_config
from segdeploy.config.schema import RunConfig

__all__ = ["RunConfig", "choose_config", "config_from_dict", "load_config", "parse_config"]
