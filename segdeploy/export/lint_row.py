"""A row of the lint's table: what a parser refuses or does badly, in which versions, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdeploy.export.lint_graph import Node  # imports onnx, which the parser's verdict does without

RTX = "RTX"
EVERY = ("10", "11", RTX)
STANDARD_ONLY = ("10", "11")

Severity = Literal["error", "warning"]
When: TypeAlias = "Callable[[Node], bool | str]"
"""Whether a row concerns a node; a text is the detail that the finding shows beside the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    severity: Severity
    """error: no engine, or one that computes something else. warning: an engine that does it badly."""
    operators: str
    """The operators that it looks at, separated by spaces; `*` for all, `input` and `opset` for the graph's own."""
    when: When
    reason: str
    fix: str
    source: str
    """How it is known: `RTX` said so to tests/export/test_lint.py; `operators.md`, `changelog`: see export/lint.py."""
    versions: tuple[str, ...] = EVERY
    """TensorRT versions, as `11` or a span `10.0-10.14`, and `RTX` (TensorRT for RTX)."""
    rtx: Literal["parser", "builder", ""] = ""
    """Who refuses it in TensorRT for RTX 1.7; empty: it is taken there."""


def refused(name: str, operators: str, when: When, reason: str, fix: str, **more: Any) -> Row:
    """A row of what every TensorRT's parser refuses; `more` says where it is otherwise."""
    known: dict[str, Any] = {"severity": "error", "source": "RTX; operators.md", "rtx": "parser"}
    return Row(name=name, operators=operators, when=when, reason=reason, fix=fix, **(known | more))


def concerns(versions: tuple[str, ...], target: str) -> bool:
    """Whether a row of these versions is about `target`: `RTX`, or a version of TensorRT such as `10.16.1` or `11`.

    A major version alone asks for the newest of it.
    """
    if target == RTX:
        return RTX in versions
    asked = _number(target, newest=True)
    spans = [version.partition("-") for version in versions if version != RTX]
    return any(_number(low) <= asked <= _number(high or low, newest=True) for low, _, high in spans)


def _number(version: str, newest: bool = False) -> tuple[int, int]:
    parts = version.split(".")
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 999 if newest else 0
