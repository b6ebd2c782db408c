"""Names of classes from a file beside the data: classes.yaml, a label map in JSON, or a text of lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from segdeploy.classes import Color, Colors, PixelValue, Values
from segdeploy.config.schema import NamedClass
from segdeploy.config.yaml12 import parse
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FILES = (
    "classes.yaml", "classes.yml", "classes.json", "label_map.json", "labelmap.json", "id2label.json", "labels.json",
    "class_names.json", "labelmap.txt", "label_colors.txt", "classes.txt", "class_names.txt", "labels.txt",
)  # fmt: skip
_COLOR_FIRST = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+)")
_CVAT = re.compile(r"([^:]+):(\d+),(\d+),(\d+):.*")
_INDEX: TypeAdapter[Any] = TypeAdapter(PixelValue | Values | None)
_COLOR: TypeAdapter[Any] = TypeAdapter(Color | Colors | None)
_NUMBERED = re.compile(r"(\d+)\s*[:,\s]\s*(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a file says about the classes; `value` of each class is None where the file's order counts."""

    file: Path
    classes: tuple[NamedClass, ...]
    ignore_index: PixelValue | Values | None = None
    ignore_color: Color | Colors | None = None


def find_names(folder: Path) -> Names | None:
    """The names that a folder's classes.yaml, label map or classes.txt gives; None where it has no such file.

    YAML and JSON hold a list of names or of `{name, id, value, color}`, a mapping between ids and names, or one of
    the two under `classes`, with `ignore_index` and `ignore_color` beside it. Lines of a text are "name",
    "3 name", "255 0 0 name" or CVAT's "name:255,0,0::".

    Raises:
        DataError: the file is there and cannot be read as any of these.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    try:
        names = _from_lines(path, text) if path.suffix == ".txt" else _from_tree(path, parse(text, str(path)).value)
    except (ValidationError, ValueError, TypeError, KeyError) as e:
        said = e.errors(include_url=False)[0]["msg"] if isinstance(e, ValidationError) else e
        raise DataError(f"{path}: expected names of classes, as a list or by id: {said}") from e
    if len(names.classes) < 2:
        raise DataError(f"{path}: expected at least two classes, found {len(names.classes)}")
    return names


def _from_tree(path: Path, tree: Any) -> Names:
    outer = tree if isinstance(tree, dict) and "classes" in tree else {"classes": tree}
    items = outer["classes"]
    if isinstance(items, dict):
        items = [{"id": k, "name": v} if str(k).isdecimal() else {"id": v, "name": k} for k, v in items.items()]
        items = [{**item, "id": int(item["id"])} for item in items]
    if not isinstance(items, list):
        raise ValueError(f"found {type(items).__name__}")
    return Names(
        file=path,
        classes=_classes({"name": i} if isinstance(i, str) else dict(i) for i in items),
        ignore_index=_ignored(_INDEX, "ignore_index", "one pixel value or several", outer),
        ignore_color=_ignored(_COLOR, "ignore_color", "one colour [red, green, blue] or several", outer),
    )


def _ignored(form: TypeAdapter[Any], key: str, expected: str, tree: dict[str, Any]) -> Any:
    try:
        return form.validate_python(tree.get(key))
    except ValidationError as e:
        raise ValueError(f"expected {expected} in `{key}`, found {tree[key]!r}") from e


def _from_lines(path: Path, text: str) -> Names:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("#", "//"))]
    return Names(file=path, classes=_classes(_from_line(line) for line in lines))


def _from_line(line: str) -> dict[str, Any]:
    if found := _CVAT.fullmatch(line):
        return {"name": found[1], "color": [int(v) for v in found.groups()[1:]]}
    if found := _COLOR_FIRST.fullmatch(line):
        return {"name": found[4], "color": [int(v) for v in found.groups()[:3]]}
    if found := _NUMBERED.fullmatch(line):
        return {"name": found[2], "id": int(found[1])}
    return {"name": line}


def _classes(items: Iterable[dict[str, Any]]) -> tuple[NamedClass, ...]:
    """In order of their pixel values; an `id` is the pixel value where there is no `value`."""
    classes = []
    for item in items:
        value = item.get("value", item.get("id"))
        known = {k: item[k] for k in ("name", "color", "mask_colors") if item.get(k) is not None}
        classes.append(
            NamedClass.model_validate(
                {**known, "name": str(known["name"]), "value": tuple(value) if isinstance(value, list) else value},
                strict=False,
            )
        )
    if any(c.value is None for c in classes) and any(c.value is not None for c in classes):
        raise ValueError("some have an id and some have none")
    if doubled := sorted({c.name for c in classes if sum(c.name == other.name for other in classes) > 1}):
        raise ValueError(f"{', '.join(doubled)} stands more than once")
    return tuple(sorted(classes, key=lambda c: min(values_of(c), default=0)))


def values_of(named: NamedClass) -> tuple[int, ...]:
    """The pixel values that a class has of its own; empty where the order of the classes counts."""
    return (named.value,) if isinstance(named.value, int) else named.value or ()
