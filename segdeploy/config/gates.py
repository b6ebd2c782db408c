"""Gates on a benchmark: how a limit on one of its numbers is written.

    miou_drop<=0.003
    p99_ms[backend=onnxruntime,precision=int8,batch=1]<=25

The selector stands in brackets behind the metric, as labels do in Prometheus: a gate is one word without spaces or
colons, so that it needs no quotes in YAML and one pair in a shell, and each part of the selector says its key, so
that a slip can be told from a row that is not there. A gate holds for every row that it selects; without `backend` or
`name` that are all but torch's own, which are measured to compare with and do not ship.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segdeploy.config.gate_metrics import METRICS, Metric
from segdeploy.config.yaml12 import dotted, parse
from segdeploy.errors import ConfigError, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from segdeploy.config.yaml12 import KeyPath

Operator = Literal["<=", "<", ">=", ">", "=="]


SELECTORS = ("name", "backend", "variant", "precision", "provider", "batch", "threads", "height", "width")
"""What rows are selected by; `*` in a word stands for any letters, and case does not count."""
NUMBERS = ("batch", "threads", "height", "width")
_SLIPS = ("=", "=<", "=>", "\N{LESS-THAN OR EQUAL TO}", "\N{GREATER-THAN OR EQUAL TO}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FORM = "expected METRIC<=NUMBER or METRIC[KEY=VALUE,...]>=NUMBER, such as p99_ms[backend=onnxruntime]<=25"


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit, and the rows that must keep it."""

    metric: Metric
    selector: tuple[tuple[str, str], ...]
    operator: Operator
    limit: float
    text: str
    """As it was written, without spaces around its parts."""

    def kept(self, value: float) -> bool:
        """Whether `value` is within the limit; NaN never is."""
        return {
            "<=": value <= self.limit,
            "<": value < self.limit,
            ">=": value >= self.limit,
            ">": value > self.limit,
            "==": value == self.limit,
        }[self.operator]


def parse_gate(text: str) -> Gate:
    """One gate.

    Raises:
        ValueError: one line that says what is wrong and what may have been meant.
    """
    found = re.fullmatch(
        r"([^\[\]<>=!\u2264\u2265]*)(\[[^\]]*\])?\s*([<>=!\u2264\u2265]+)(.*)", text.strip(), re.DOTALL
    )
    if found is None:
        raise ValueError(_FORM)
    name, selector, operator, number = ((part or "").strip() for part in found.groups())
    metric = METRICS.get(name)
    if metric is None:
        near = difflib.get_close_matches(name, METRICS, 1, 0.6)
        hint = f"did you mean {near[0]!r}?" if near else "`segdeploy gate --metrics` lists all"
        raise ValueError(f"no metric is named {name!r}; {hint}")
    terms = _terms(selector[1:-1]) if selector else ()
    limit = _limit(number, metric)
    return Gate(metric, terms, _operator(operator, metric, number), limit, _text(name, terms, operator, number))


def parse_gates(texts: Iterable[str], where: str) -> tuple[Gate, ...]:
    """Several, each once; ConfigError with a line for each mistake."""
    return _all_of((f"{where} {text!r}", text) for text in texts)


def read_gates(path: Path) -> tuple[Gate, ...]:
    """A YAML file: a list of gates, or the key `gates` with one.

    Raises:
        ConfigError: the file cannot be read, or a line for each mistake in it.
    """
    try:
        source = parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: expected UTF-8 text") from e
    value: Any = source.value
    at: KeyPath = ()
    if isinstance(value, dict):
        for key in value:
            if key != "gates":
                raise ConfigError(f"{source.where((key,))}: {key}: unknown key{suggest(str(key), ['gates'])}")
        value, at = value.get("gates"), ("gates",)
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{path}: expected a list of gates, such as\n  - miou_drop<=0.003")
    placed = []
    for number, item in enumerate(value):
        place = f"{source.where((*at, number))}: {dotted((*at, number))}"
        if not isinstance(item, str):
            raise ConfigError(f"{place}: {_FORM}, got {item!r}")
        placed.append((f"{place}: {item!r}", item))
    return _all_of(placed)


def _all_of(placed: Iterable[tuple[str, str]]) -> tuple[Gate, ...]:
    found: dict[str, Gate] = {}
    mistakes = []
    for where, text in placed:
        try:
            gate = parse_gate(text)
        except ValueError as e:
            mistakes.append(f"{where}: {e}")
        else:
            found.setdefault(gate.text, gate)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return tuple(found.values())


def _text(name: str, terms: tuple[tuple[str, str], ...], operator: str, number: str) -> str:
    inside = ",".join(f"{key}={value}" for key, value in terms)
    return f"{name}{f'[{inside}]' if inside else ''}{operator}{number}"


def _terms(inside: str) -> tuple[tuple[str, str], ...]:
    terms: dict[str, str] = {}
    for part in inside.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise ValueError(f"expected KEY=VALUE in the selector, such as batch=1, got {part.strip()!r}")
        if key not in SELECTORS:
            raise ValueError(f"rows have no {key!r} to select by{suggest(key, SELECTORS)}")
        if key in terms:
            raise ValueError(f"{key} stands twice in the selector; write a gate for each value")
        if key in NUMBERS and not (value.isascii() and value.isdecimal()):
            raise ValueError(f"{key}: expected a whole number, got {value!r}")
        terms[key] = str(int(value)) if key in NUMBERS else value
    return tuple(terms.items())


def _operator(sign: str, metric: Metric, number: str) -> Operator:
    allowed: tuple[Operator, ...] = ("<=", "<", "==") if metric.better == "lower" else (">=", ">", "==")
    for operator in allowed:
        if sign == operator:
            return operator
    if sign in ("<=", "<", ">=", ">"):
        right = f"{metric.name}{allowed[0]}{number}"
        raise ValueError(f"of {metric.name} {metric.better} is better, so its limit is written {allowed[0]}: {right}")
    hint = f"did you mean {allowed[0]!r}?" if sign in _SLIPS else f"{metric.name} takes {', '.join(allowed)}"
    raise ValueError(f"no operator is written {sign!r}; {hint}")


def _limit(number: str, metric: Metric) -> float:
    limit = float(number) if _NUMBER.fullmatch(number) else math.nan
    if not math.isfinite(limit):
        unit = {"fraction": "a fraction: 0.01 is one percent", "x": "times as fast"}.get(
            metric.unit, f"in {metric.unit}"
        )
        raise ValueError(f"expected a plain number behind {metric.name} ({unit}), got {number!r}")
    return limit
