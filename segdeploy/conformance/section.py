"""A part's configuration, and the keys without which it cannot be made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segdeploy.errors import ConfigError, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from segdeploy.conformance.find import Part
    from segdeploy.plugin import Section


class KeysNeededError(ConfigError):
    """A part, or the only partner that may fit it, has keys without a default: it is judged where they are given."""


def required_keys(part: Part) -> list[str]:
    """The keys that have no default."""
    return [key for key, field in part.plugin.config.model_fields.items() if field.is_required()]


def require_keys(part: Part, values: Mapping[str, Any]) -> list[str]:
    """`required_keys`, all of them given.

    Raises:
        KeysNeededError: one is not among `values`.
    """
    required = required_keys(part)
    if missing := [key for key in required if key not in values]:
        raise KeysNeededError(f"{part}: give its keys {', '.join(missing)} with --set")
    return required


def section_of(part: Part, values: Mapping[str, Any]) -> Section:
    """The part's configuration, defaults but for `values`, without trained weights.

    Raises:
        KeysNeededError: a key without a default is not among `values`.
        ConfigError: a key or value of `values` that the part refuses.
        pydantic.ValidationError: the part's defaults are not valid on their own.
    """
    config: type[Section] = part.plugin.config
    require_keys(part, values)
    chosen = dict(values)
    if "use_pretrained" in config.model_fields:
        chosen["use_pretrained"] = False
    try:
        return config.model_validate_json(json.dumps(chosen))
    except ValidationError as e:
        for error in e.errors(include_url=False):
            key = str(error["loc"][0]) if error["loc"] else ""
            if key in values:
                if error["type"] == "extra_forbidden":
                    raise ConfigError(f"{part}: has no key {key!r}{suggest(key, config.model_fields)}") from e
                raise ConfigError(f"{part}: {key}={values[key]!r}: {error['msg']}") from e
        raise
