"""Numbers as a reader sees them: enough digits, no more, and never flattered."""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def _tell(value: float | None, how: Callable[[float], str]) -> str:
    return how(value) if isinstance(value, int | float) and math.isfinite(value) else DASH


def figure(value: float | None) -> str:
    """Three digits or more; a dash for what is not known."""
    size = abs(value or 0)
    form = ",.0f" if size >= 1000 else ".1f" if size >= 100 else ".2f" if size >= 1 else ".3g"
    return _tell(value, lambda v: format(v, form))


def count(value: int | None) -> str:
    """A whole number."""
    return _tell(value, lambda v: f"{v:,}")


def mebibytes(value: float | None) -> str:
    """Bytes in MiB."""
    return _tell(value, lambda v: figure(v / 2**20))


def percent(value: float | None) -> str:
    """A fraction in percent: 0.12345 as "12.35"."""
    return _tell(value, lambda v: f"{v * 100:.2f}")


def share(value: float | None) -> str:
    """Percent with three decimals, rounded down: nothing short of all may read as 100."""
    return _tell(value, lambda v: "100" if v >= 1 else f"{min(math.floor(v * 1e5 + 1e-6), 99999) / 1e3:.3f}")


def points(value: float | None) -> str:
    """A difference of two fractions in percentage points, with its sign; what rounds to nothing has none."""
    return _tell(value, lambda v: f"{v * 100:+.2f}".replace("-", MINUS) if differs(v) else "0.00")


def differs(delta: float | None) -> bool:
    """Whether a difference is still there after rounding to hundredths of a point."""
    return delta is not None and round(abs(delta) * 100, 2) > 0


def times(value: float | None) -> str:
    """A ratio: two decimals, more where it is small."""
    return _tell(value, lambda v: f"{v:.2f}" if v >= 0.095 else f"{v:.2g}")


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A ratio with its interval: "1.31x [1.28, 1.34]"."""
    known = f" [{times(low)}, {times(high)}]" if low is not None and high is not None else ""
    return DASH if value is None else f"{times(value)}x{known}"


def plural(number: int, word: str) -> str:
    """`number` of something: "1 thread", "2 threads"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def markdown(text: object) -> str:
    """Text that Markdown takes literally, on one line, also inside a table."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"[\\`*|~]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(", r"\\\g<0>", text)
