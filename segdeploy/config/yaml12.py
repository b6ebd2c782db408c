"""A small, safe reader of YAML: the 1.2 core types, line numbers, and no room for tricks.

PyYAML parses the text into nodes; the nodes become plain values here, so no tag can build an object,
`1e-3` is a float and `no` is a string, as YAML 1.2 says (https://yaml.org/spec/1.2.2, chapter 10.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from segdeploy.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 50

KeyPath = tuple[str | int, ...]

_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}
# PyYAML tags unquoted dates, `=` and `<<` by itself; in YAML 1.2 they are plain strings.
_RESOLVED_BY_PYYAML = {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "merge")}
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file: its plain value, its name for messages, and the line (from 1) of each key path."""

    value: Any
    name: str
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """`file:line` of the key path, or of the nearest path above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path in self.lines else self.name


def parse(text: str, name: str) -> Source:
    """YAML text to plain dicts, lists, strings, numbers, booleans and None.

    Raises:
        ConfigError: not YAML, a tag that is not of the core schema, a doubled key, a text larger than
            1 MiB, nested deeper than 50, or with more than 20,000 nodes once its aliases are expanded.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError(f"{name}: expected a configuration of at most 1 MiB, got {len(text):,} characters")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {e.problem or e.context}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{name}: not valid YAML: {str(e).splitlines()[0]}") from e
    except RecursionError as e:
        raise ConfigError(f"{name}: nested too deeply; at most {MAX_DEPTH} levels are allowed") from e
    lines: dict[KeyPath, int] = {}
    reader = _Reader(name, lines)
    value = None if node is None else reader.value(node, ())
    return Source(value, name, lines)


class _Reader:
    """Nodes to values, counting as it goes: an alias bomb is small as nodes and huge as values."""

    def __init__(self, name: str, lines: dict[KeyPath, int]) -> None:
        self.name = name
        self.lines = lines
        self.count = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.count += 1
        if self.count > MAX_NODES:
            raise ConfigError(
                f"{self.name}: more than {MAX_NODES:,} values once its aliases (&, *) are expanded; refused"
            )
        if len(path) > MAX_DEPTH:
            raise ConfigError(f"{self.name}:{line}: nested too deeply; at most {MAX_DEPTH} levels are allowed")
        if node.tag not in _CORE_TAGS and node.tag not in _RESOLVED_BY_PYYAML:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise ConfigError(f"{self.name}:{line}: the tag {tag} is refused; only plain YAML values are read")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self.name}:{line}: expected a plain word as key")
            key = str(key_node.value)
            if key in result:
                raise ConfigError(f"{self.name}:{line}: the key {key!r} stands twice in the same place")
            self.lines[(*path, key)] = line
            result[key] = self.value(value_node, (*path, key))
        return result


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _OTHER_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
