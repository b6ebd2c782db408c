"""A small, safe reader of YAML: the 1.2 core types, line numbers, and no room for tricks.

PyYAML parses the text into nodes; the nodes become plain values here, so no tag can build an object,
`1e-3` is a float and `no` is a string, as YAML 1.2 says (https://yaml.org/spec/1.2.2, chapter 10.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from segdeploy.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 50
MAX_DIGITS = 400

KeyPath = tuple[str | int, ...]

_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}
# PyYAML tags unquoted dates, `=` and `<<` by itself; in YAML 1.2 they are plain strings.
_RESOLVED_BY_PYYAML = {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "merge")}
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file: its plain value, its name for messages, and the line (from 1) of each key path.

    `overridden` holds the paths that came from `--set`, and their words; `written` the user's own path of each key
    that was moved from another spelling.
    """

    value: Any
    name: str
    lines: dict[KeyPath, int]
    overridden: dict[KeyPath, str] = field(default_factory=dict)
    written: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line` of the key path, or of the nearest path above it; the `--set` that it came from."""
        while path and path not in self.lines:
            if path in self.overridden:
                return f"--set {self.overridden[path]}"
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path in self.lines else self.name

    def spelled(self, path: KeyPath) -> str:
        """The path as the user wrote it: `input_features[0].preprocessing.height`."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.written:
                return dotted((*self.written[path[:length]], *path[length:]))
        return dotted(path)


def dotted(path: KeyPath) -> str:
    """A key path as text: names joined by dots, places in brackets."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def parse(text: str, name: str) -> Source:
    """YAML text to plain dicts, lists, strings, numbers, booleans and None.

    Raises:
        ConfigError: not YAML, a tag that is not of the core schema, a doubled key, a text larger than
            1 MiB, nested deeper than 50, or, once its aliases are expanded, with more than 20,000 nodes or
            more than 1 MiB of words.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError(f"{name}: expected a configuration of at most 1 MiB, got {len(text):,} characters")
    try:
        node = yaml.compose(text, Loader=_Composer)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        said = ", ".join(part for part in (e.context, e.problem) if part)
        raise ConfigError(f"{name}:{line}: not valid YAML: {said}") from e
    except (yaml.YAMLError, ValueError, OverflowError) as e:  # the last two of escapes that are no character
        raise ConfigError(f"{name}: not valid YAML: {str(e).splitlines()[0]}") from e
    except RecursionError as e:
        raise ConfigError(f"{name}: nested too deeply; at most {MAX_DEPTH} levels are allowed") from e
    lines: dict[KeyPath, int] = {}
    reader = _Reader(name, lines)
    value = None if node is None else reader.value(node, ())
    return Source(value, name, lines)


class _Composer(yaml.SafeLoader):
    """PyYAML's nodes, not too many, and `!!str 3` marked as quoted: PyYAML forgets that the tag was written."""

    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.count += 1
        if self.count > MAX_NODES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES:,} values; refused", mark)
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        tag = self.peek_event().tag  # type: ignore[no-untyped-call]
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if tag == "tag:yaml.org,2002:str":
            node.style = node.style or '"'
        return node


class _Reader:
    """Nodes to values, counting as it goes: an alias bomb is small as nodes and huge as values."""

    def __init__(self, name: str, lines: dict[KeyPath, int]) -> None:
        self.name = name
        self.lines = lines
        self.count = 0
        self.length = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.count += 1
        self.length += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self.count > MAX_NODES or self.length > MAX_BYTES:
            raise ConfigError(
                f"{self.name}: more than {MAX_NODES:,} values, or 1 MiB of words, "
                "once its aliases (&, *) are expanded; refused"
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
            self.length += len(key)
            result[key] = self.value(value_node, (*path, key))
        return result


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text = str(node.value)
    if node.style is not None or len(text) > MAX_DIGITS:  # quoted, or a block, or too long for a number
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
