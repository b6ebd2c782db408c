"""pydantic's errors as lines that a user can act on: file, line, key, what was expected, what came."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from segdeploy.errors import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from segdeploy.config.yaml12 import KeyPath, Source


def explain(error: ValidationError, source: Source, model: type[BaseModel], prefix: KeyPath) -> list[str]:
    """One line per mistake in the part of `source` at `prefix`, which `model` was to describe."""
    found: dict[KeyPath, list[str]] = {}
    got: dict[KeyPath, str] = {}
    unions: set[KeyPath] = set()  # places where each member of a union says that the value is not its kind
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]:
            continue  # the list is long enough; its items are wrong, and each says so itself
        loc = (*prefix, *item["loc"])
        path = _real_path(loc, source.value, whole=item["type"] == "missing")
        if len(path) < len(loc) and (item["type"].endswith("_type") or item["type"] == "literal_error"):
            unions.add(path)
        if item["type"].startswith("union_tag_"):
            path = (*path, "type")
        said, got[path] = _say(item, model)
        found.setdefault(path, []).append(said)
    lines = []
    for path, parts in found.items():
        if path in unions and any(len(p) > len(path) and p[: len(path)] == path for p in found):
            continue  # the value is of one member's kind, and what is wrong inside it has a line of its own
        said = parts[0] + "".join(f" or {part.removeprefix('expected ')}" for part in parts[1:])
        lines.append(f"{source.where(path)}: {source.spelled(path) or 'top'}: {said}{got[path]}")
    return lines


def drop_unknown(error: ValidationError, source: Source, prefix: KeyPath) -> list[KeyPath]:
    """Delete the keys that the error calls unknown; their paths."""
    dropped = []
    for item in error.errors(include_url=False):
        if item["type"] == "extra_forbidden":
            path = _real_path((*prefix, *item["loc"]), source.value, whole=False)
            here = source.value
            for step in path[:-1]:
                here = here[step]
            del here[path[-1]]
            dropped.append(path)
    return dropped


def _say(item: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """What is wrong, and what came instead where that helps."""
    loc, context = item["loc"], item.get("ctx", {})
    if item["type"] == "extra_forbidden":
        return "unknown key" + _meant(str(loc[-1]), model, loc[:-1]), ""
    if item["type"] == "union_tag_invalid":
        known = re.findall(r"'(\w+)'", context["expected_tags"])
        return f"no type is named {context['tag']!r}{suggest(context['tag'], known)}", ""
    if item["type"] in ("missing", "union_tag_not_found"):
        return "is required", ""
    said = re.sub(r"^Value error, ", "", item["msg"]).replace(" after validation", "")
    said = re.sub(r"^(Input|Tuple|List|Dictionary|String) should (be|have|match) ", "expected ", said)
    if isinstance(item["input"], (dict, list)):
        return said, ""
    got = repr(item["input"])
    if isinstance(item["input"], str) and got in said:
        return said, ""
    return said, f", got {got if len(got) < 60 else got[:57] + '...'}"


def _real_path(loc: tuple[str | int, ...], value: Any, *, whole: bool) -> KeyPath:
    """pydantic's place without the steps that only it knows, such as the name of a union's member.

    With `whole` the last step stays: it is the key that is missing.
    """
    path: list[str | int] = []
    for i, step in enumerate(loc):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            if not (whole and i == len(loc) - 1):
                continue
        path.append(step)
    return tuple(path)


def _meant(key: str, model: type[BaseModel], loc: Sequence[str | int]) -> str:
    """A key of the same section that is spelled nearly so; else the place deeper down where the key belongs."""
    known = _keys_at(model, loc)
    deeper = "" if loc or difflib.get_close_matches(key, known, 1, 0.6) else _place_of(key, model)
    return f"; did you mean {deeper!r}?" if deeper else suggest(key, known)


def _place_of(key: str, model: type[BaseModel]) -> str:
    """Where the key is, seen from the top, as near to it as can be; empty where it is nowhere."""
    waiting, seen = [("", model)], {model}
    while waiting:
        path, here = waiting.pop(0)
        if near := difflib.get_close_matches(key, here.model_fields, 1, 0.8):
            return path + near[0]
        for name, field in here.model_fields.items():
            models = _models_in(field.annotation)
            if len(models) == 1 and not models & seen:  # what others hold depends on their type
                listed = "[0]" if get_origin(field.annotation) is tuple else ""
                waiting.append((f"{path}{name}{listed}.", next(iter(models))))
                seen |= models
    return ""


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    models = {model}
    for step in loc:
        fields = [m.model_fields[step] for m in models if step in m.model_fields]
        if fields:
            models = {m for f in fields for m in _models_in(f.annotation)}
        else:  # a list's place, or the name of a union's member
            models = {m for m in models if _tag(m) == step} or models
    return sorted({name for m in models for name in m.model_fields})


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field is not None else ()
    return str(values[0]) if values else None


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {m for part in get_args(annotation) for m in _models_in(part)}
