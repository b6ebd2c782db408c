"""A plugin's keys as text, from the one place where they are defined."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdeploy.plugin.contract import Section


def describe_section(section: type[Section]) -> str:
    """One entry per key: type, bounds, default, and the description under it."""
    schema = section.model_json_schema()
    lines = [str(section.__doc__ or "").strip().splitlines()[0], ""]
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else f"default {field.get('default')!r}"
        lines.append(f"  {name}: {_type(field)}, {default}")
        if field.get("description"):
            lines.append(indent(field["description"], " " * 6))
    return "\n".join(lines)


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(f) for f in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    said = [f"{sign} {field[key]}" for key, sign in bounds.items() if key in field]
    return " ".join([str(field.get("type", "value")), *said])
