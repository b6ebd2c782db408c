"""`--set KEY=VALUE` words put into a parsed configuration."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from segdeploy.config.yaml12 import KeyPath, Source, dotted, parse
from segdeploy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORT: dict[str, KeyPath] = {
    "encoder": ("input_features", 0, "encoder"),
    "augmentation": ("input_features", 0, "augmentation"),
    "decoder": ("output_features", 0, "decoder"),
    "loss": ("output_features", 0, "loss"),
}
"""First words that stand for a place deeper down."""
_HAVE_A_TYPE = ("encoder", "decoder", "loss", "optimizer")


def apply_overrides(source: Source, words: Sequence[str]) -> None:
    """Change `source` in place; KEY is a dotted path or starts with a word of `SHORT`, VALUE is YAML.

    Raises:
        ConfigError: not KEY=VALUE, or a place that is not there.
    """
    for word in words:
        _apply(source, word)


def _apply(source: Source, word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {word}: expected KEY=VALUE, such as trainer.epochs=10")
    path: KeyPath = tuple(int(k) if k.isdecimal() else k for k in re.split(r"[.\[]", key.replace("]", "")))
    if path[0] in SHORT:
        path = (*SHORT[str(path[0])], *path[1:])
    value = parse(text, f"--set {key}").value
    here = source.value
    for step, following in itertools.pairwise(path):
        if isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        elif isinstance(here, dict):
            if isinstance(here.get(str(step)), str) and step in _HAVE_A_TYPE:
                here[str(step)] = {"type": here[str(step)]}
            if here.get(str(step)) is None:
                here[str(step)] = [] if isinstance(following, int) else {}
            here = here[str(step)]
        else:
            raise ConfigError(f"--set {word}: there is no {dotted(path)} in {source.name}")
    last = path[-1]
    if isinstance(here, list) and isinstance(last, int) and last < len(here):
        here[last] = value
    elif isinstance(here, dict):
        here[str(last)] = value
    else:
        raise ConfigError(f"--set {word}: there is no {dotted(path)} in {source.name}")
    for known in [p for p in source.overridden if p[: len(path)] == path]:
        del source.overridden[known]
    source.overridden[path] = word
    for known in [p for p in source.lines if p[: len(path)] == path]:
        del source.lines[known]
