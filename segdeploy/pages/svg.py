"""Parts of inline SVG: text in currentColor, marks in the page's CSS variables, sizes by the viewBox."""

from __future__ import annotations

import math
import unicodedata
from html import escape
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLORS = 8  # the page defines --s0 to --s7; more series than that take turns

# Narrow on purpose: on a phone of 360 px a picture shrinks to 0.8, and 12 units are still about 10 px.
WIDTH = 420
_CHAR = 7.2  # units that a character of 12 units takes, on the safe side for common system fonts


def drawing(
    name: str, title: str, about: Sequence[str], width: float, height: float, body: Iterable[str], style: str = ""
) -> Markup:
    """The whole picture, with a title and a description for those who cannot see it; empty without a description."""
    if not about:
        return Markup("")
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="-1 0 {width + 2:.0f} {height + 1:.0f}" style="{style or "max-width:540px"}" font-size="12" '
        f'fill="currentColor"><title id="{name}-title">{clean(title)}</title>'
        f'<desc id="{name}-desc">{clean("; ".join(about))}</desc>{"".join(body)}</svg>'
    )


def clean(text: str) -> str:
    """Escaped; control characters have no place in XML, not even escaped."""
    return escape("".join(c if c.isprintable() else " " for c in text))


def width_of(text: str) -> float:
    """Units that a line of text takes, at most."""
    return sum(_CHAR * (2 if unicodedata.east_asian_width(c) in "WF" else 1) for c in text)


def fit(text: str, units: float) -> str:
    """As much of a text as has room, with an ellipsis where some is left out."""
    if width_of(text) <= units:
        return text
    while text and width_of(text) + _CHAR > units:
        text = text[:-1]
    return text.rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def text(
    x: float, y: float, said: str, anchor: str = "start", hover: str = "", *, bold: bool = False, turn: bool = False
) -> str:
    """A line of text; `turn` writes it upwards."""
    more = ' font-weight="600"' if bold else f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    title = f"<title>{clean(hover)}</title>" if hover and hover != said else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{title}{clean(said)}</text>'


def pair(x: float, y: float, name: str, value: str) -> list[str]:
    """A name on the left and its value on the right of one line; the name gives way."""
    room = WIDTH - x - width_of(value) - 12
    return [text(x, y, fit(name, room), hover=name), text(WIDTH, y, value, "end")]


def color(number: int) -> str:
    """The CSS variable of a series."""
    return f"s{number % COLORS}"


def line(x1: float, y1: float, x2: float, y2: float, paint: str) -> str:
    """A line in one of the page's colours; those of series are twice as thick."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="var(--{paint})" stroke-width="{2 if paint.startswith("s") else 1}"/>'


def rect(x: float, y: float, width: float, height: float, number: int, hover: str = "", opacity: float = 1) -> str:
    """A bar in the colour of a series."""
    title = f"<title>{clean(hover)}</title>" if hover else ""
    size = f'width="{max(width, 0):.1f}" height="{height:.1f}"'
    paint = f'fill="var(--{color(number)})"' + (f' fill-opacity="{opacity:g}"' if opacity < 1 else "")
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} {paint}>{title}</rect>'


def mark(x: float, y: float, number: int, r: float, hover: str = "") -> str:
    """Circle, square, diamond or triangle: colour alone would leave some readers out."""
    path = (
        f"m{-r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"m{-0.9 * r:.1f} {-0.9 * r:.1f}h{1.8 * r:.1f}v{1.8 * r:.1f}h{-1.8 * r:.1f}z",
        f"m0 {-1.2 * r:.1f}l{1.2 * r:.1f} {1.2 * r:.1f}l{-1.2 * r:.1f} {1.2 * r:.1f}l{-1.2 * r:.1f} {-1.2 * r:.1f}z",
        f"m0 {-r}l{r} {1.9 * r:.1f}h{-2 * r}z",
    )[number % 4]
    title = f"<title>{clean(hover)}</title>" if hover else ""
    return f'<path d="M{x:.1f} {y:.1f}{path}" fill="var(--{color(number)})" stroke="var(--bg)">{title}</path>'


def scale(far: float, top: float, bottom: float) -> list[str]:
    """Grid, and numbers below it, of a group of bars that start at zero."""
    drawn, span = [], WIDTH - 2
    for tick in ticks(0, far):
        x = tick / far * span
        anchor = "start" if x < 12 else "end" if x > span - 12 else "middle"
        drawn += [line(x, top, x, bottom, "grid"), text(x, bottom + 12, f"{tick:g}", anchor)]
    return drawn


def ticks(low: float, high: float) -> list[float]:
    """About four round numbers from `low` to `high`."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    return [round(step * n, 10) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def path(points: Sequence[tuple[float, float]], number: int, *, dashed: bool = False, hover: str = "") -> str:
    """A curve in the colour of a series; `dashed` tells two apart where colour does not."""
    steps = " ".join(f"{x:.1f} {y:.1f}" for x, y in points)
    title = f"<title>{clean(hover)}</title>" if hover else ""
    how = f'fill="none" stroke="var(--{color(number)})" stroke-width="2" stroke-linejoin="round"'
    more = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<path d="M{steps}" {how}{more}>{title}</path>'
