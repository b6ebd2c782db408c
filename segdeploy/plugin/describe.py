"""Keys and hooks as text, from the one place where they are defined.

`python -m segdeploy.plugin.describe plugins/README.md` rewrites the hooks' part of the author's guide.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from segdeploy.files import write_text
from segdeploy.plugin import hookspecs

if TYPE_CHECKING:
    from segdeploy.plugin.contract import Section


def describe_section(section: type[Section]) -> str:
    """One entry per key: type, bounds, default, and the description under it; keys of inner sections below theirs."""
    schema = section.model_json_schema()
    defs = schema.get("$defs", {})
    root = defs.get(_target(schema), schema)  # a section that may hold itself stands among the definitions
    for name, info in section.model_fields.items():
        if info.default_factory is not None and name in root["properties"]:  # JSON Schema leaves these out
            made = info.get_default(call_default_factory=True, validated_data={})
            root["properties"][name]["default"] = to_jsonable_python(made, fallback=str)
    about = (section.__doc__ or "").strip().partition("\n")[0]
    keys = _keys(root, defs, "  ", ()) or ["  (no keys)"]
    return "\n".join([*([about] if about else []), "", *keys])


def _keys(schema: dict[str, Any], defs: dict[str, Any], margin: str, above: tuple[str, ...]) -> list[str]:
    lines = []
    for name, field in schema.get("properties", {}).items():
        needed = name in schema.get("required", ())
        default = "required" if needed else f"default {json.dumps(field.get('default'), ensure_ascii=False)}"
        lines.append(f"{margin}{name}: {_type(field, defs)}, {default}")
        if field.get("description"):
            lines.append(indent(field["description"], f"{margin}    "))
        for target in filter(None, map(_target, (field, *field.get("anyOf", ()), field.get("items", {})))):
            if target not in above:
                lines += _keys(defs[target], defs, f"{margin}    ", (*above, target))
    return lines


def _target(field: dict[str, Any]) -> str:
    """The name of the definition that stands for a field; "" where it is none."""
    return str(field.get("$ref", "")).rpartition("/")[2]


def _type(field: dict[str, Any], defs: dict[str, Any]) -> str:
    if "$ref" in field:
        return _type(defs[_target(field)], defs)
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(_type(f, defs) for f in field[union])
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if "const" in field:
        return str(json.dumps(field["const"]))
    if field.get("type") == "array":
        return _array(field, defs)
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"mapping of names to {_type(values, defs)}" if isinstance(values, dict) else "mapping"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    said = [f"{sign} {field[key]}" for key, sign in bounds.items() if key in field]
    if "multipleOf" in field:
        said.append(f"a multiple of {field['multipleOf']}")
    if length := _length(field.get("minLength"), field.get("maxLength")):
        said.append(f"of {length} characters")
    if "pattern" in field:
        said.append(f"that matches {field['pattern']}")
    return " ".join([str(field.get("type", "value")), *said])


def _array(field: dict[str, Any], defs: dict[str, Any]) -> str:
    if "prefixItems" in field:
        return f"list of ({', '.join(_type(f, defs) for f in field['prefixItems'])})"
    length = _length(field.get("minItems"), field.get("maxItems"))
    return f"list of {_type(field.get('items', {}), defs)}" + (f", {length} long" if length else "")


def _length(low: int | None, high: int | None) -> str:
    if low is not None and low == high:
        return str(low)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else ""


def hooks_markdown() -> str:
    """The hooks' signatures and docstrings as Markdown, in the order of `hookspecs`."""
    said = []
    for name, hook in vars(hookspecs).items():
        if name.startswith("segdeploy_"):
            said += [f"### `{name}({', '.join(inspect.signature(hook).parameters)})`", inspect.getdoc(hook) or ""]
    return "\n\n".join(said) + "\n"


def with_block(text: str, name: str, block: str) -> str:
    """A text with what stands between the markers `name`:begin and `name`:end made new.

    Raises:
        ValueError: the text has not both, once each and in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    parts = re.split(f"({re.escape(begin)}|{re.escape(end)})", text)
    if parts[1::2] != [begin, end]:
        raise ValueError(f"expected the lines {begin} and {end}, once each and in this order")
    return f"{parts[0]}{begin}\n\n{block}\n{end}{parts[4]}"


if __name__ == "__main__":
    guide = Path(sys.argv[1])
    write_text(guide, with_block(guide.read_text(encoding="utf-8"), "hooks", hooks_markdown()))
