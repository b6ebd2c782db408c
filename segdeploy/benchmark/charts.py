"""Numbers to inline SVG: text in currentColor, marks in the page's CSS variables, sizes by the viewBox."""

from __future__ import annotations

import math
import unicodedata
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
COLORS = 8  # the page defines --s0 to --s7; more rows than that take turns
MAX_MATRIX = 20  # with more classes the cells of a confusion matrix cannot be read
MAX_BARS = 60  # more classes are a list that nobody scrolls through; the page's table has them all

# Narrow on purpose: on a phone of 360 px a picture shrinks to 0.8, and 12 units are still about 10 px.
_WIDTH = 420
_SPAN = _WIDTH - 2
_CHAR = 7.2  # units that a character of 12 units takes, on the safe side for common system fonts


class Point(NamedTuple):
    """One mark of the scatter: milliseconds per image, mean IoU as a fraction."""

    label: str
    series: int
    x: float
    y: float


class Span(NamedTuple):
    """Percentiles of one row in milliseconds."""

    label: str
    series: int
    p50: float
    p90: float
    p99: float


class Bar(NamedTuple):
    """One value from zero on."""

    label: str
    series: int
    value: float


class ClassBars(NamedTuple):
    """IoU of every class by one backend, and its difference from the first backend of the picture."""

    label: str
    series: int
    values: Sequence[float | None]
    deltas: Sequence[float | None]


def scatter(points: Sequence[Point], batch: int) -> Markup:
    """Time against accuracy, one mark a row; names stand in a key below, so they cannot cover each other."""
    if not points:
        return Markup("")
    left, right, top, bottom = 48, _WIDTH - 10, 26, 216
    far = max([p.x for p in points] + [1e-9]) * 1.08
    low, high = min(p.y for p in points) * 100, max(p.y for p in points) * 100
    # At least one point of mIoU high: thousandths of a point must not look like a difference.
    pad = max((1 - (high - low)) / 2, (high - low) * 0.15)
    low, high = low - pad, high + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / far * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    body = [_text(0, 14, "mIoU, %"), _text(right, bottom + 33, f"p50 per image at batch {batch}, ms", "end")]
    for tick in _ticks(low, high):
        y = at(0, tick)[1]
        body += [_line(left, y, right, y, "grid"), _text(left - 6, y + 4, f"{tick:g}", "end")]
    for tick in _ticks(0, far):
        x = at(tick, 0)[0]
        body += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 16, f"{tick:g}", "middle")]
    body += [_line(left, bottom, right, bottom, "axis"), _line(left, top, left, bottom, "axis")]
    y, about = bottom + 58.0, []
    for p in points:
        said = f"{p.x:.2f} ms, {p.y * 100:.2f} %"
        about.append(f"{p.label} {said}")
        body += [_mark(*at(p.x, p.y * 100), p.series, 7, about[-1]), _mark(8, y - 4, p.series, 6)]
        body += _pair(20, y, p.label, said)
        y += 19
    return _svg("scatter", f"Accuracy against time per image at batch {batch}", about, _WIDTH, y - 8, body)


def latency(groups: Mapping[int, Sequence[Span]]) -> Markup:
    """p50 as a bar from zero, p90 and p99 as ticks on the line behind it; every batch size has its own scale."""
    body, about = list[str](), list[str]()
    y = 0.0
    for batch, spans in groups.items():
        far = max([s.p99 for s in spans] + [1e-9])
        body += [_text(0, y + 14, f"Batch {batch}, ms per call", bold=True)]
        y += 24
        body += _scale(far, y, y + 34 * len(spans))
        for s in spans:
            mid, color, said = y + 21, _color(s.series), f"{s.p50:.2f} / {s.p90:.2f} / {s.p99:.2f}"
            to50, to90, to99 = (v / far * _SPAN for v in (s.p50, s.p90, s.p99))
            about.append(f"{s.label} at batch {batch}: {said}")
            body += [*_pair(0, y + 12, s.label, said), _rect(0, mid - 5, to50, 10, s.series, about[-1])]
            body += [_line(to50, mid, to99, mid, color)]
            body += [_line(x, mid - half, x, mid + half, color) for x, half in ((to90, 4), (to99, 7))]
            y += 34
        y += 26
    return _svg("latency", "Latency p50, p90 and p99 by batch size, in ms per call", about, _WIDTH, y - 8, body)


def throughput(groups: Mapping[int, Sequence[Bar]]) -> Markup:
    """Images per second as bars from zero, all batch sizes on one scale."""
    body, about = list[str](), list[str]()
    y = 0.0
    far = max([b.value for bars in groups.values() for b in bars] + [1e-9])
    for batch, bars in groups.items():
        body += [_text(0, y + 14, f"Batch {batch}, images per second", bold=True)]
        y += 24
        body += _scale(far, y, y + 34 * len(bars))
        for b in bars:
            about.append(f"{b.label} at batch {batch}: {b.value:.2f}")
            body += _pair(0, y + 12, b.label, f"{b.value:.2f}")
            body += [_rect(0, y + 16, b.value / far * _SPAN, 10, b.series, about[-1])]
            y += 34
        y += 26
    return _svg("throughput", "Images per second by batch size", about, _WIDTH, y - 8, body)


def class_bars(names: Sequence[str], series: Sequence[ClassBars]) -> Markup:
    """IoU of each class: always the first backend, the others on lines of their own where they differ."""
    if not series or len(names) > MAX_BARS:
        return Markup("")
    left, right, y = 112, _WIDTH - 104, 0.0
    body, about = list[str](), list[str]()
    drawn: dict[str, int] = {}
    for i, name in enumerate(names):
        body.append(_text(left - 8, y + 13, _fit(name, left - 8), "end", name))
        for n, s in enumerate(series):
            value, delta = s.values[i], s.deltas[i]
            if n and not differs(delta):
                continue
            drawn[s.label] = s.series
            said = DASH if value is None else f"{value * 100:.2f}"
            said += f" ({signed(delta)})" if n and delta is not None else ""
            about.append(f"{name}, {s.label}: {said}")
            body.append(_rect(left, y + 4, (value or 0) * (right - left), 11, s.series, about[-1]))
            body.append(_text(right + 6, y + 13, said))
            y += 18
        y += 4
    for quarter in range(5):
        x = left + quarter / 4 * (right - left)
        body.insert(0, _line(x, 0, x, y, "grid"))
        body += [] if quarter % 2 else [_text(x, y + 14, f"{quarter * 25} %", "middle")]
    y += 22
    for label, number in drawn.items():
        body += [_rect(left, y + 4, 11, 11, number), _text(left + 18, y + 14, _fit(label, _WIDTH - left - 18))]
        y += 19
    return _svg("classes", "IoU of each class, in percent", about, _WIDTH, y, body)


def row_shares(matrix: Sequence[Sequence[int]]) -> list[list[float | None]]:
    """Every row of a confusion matrix divided by its sum; None in rows without a pixel."""
    return [[v / sum(row) if any(row) else None for v in row] for row in matrix]


def heat_map(names: Sequence[str], matrix: Sequence[Sequence[int]], backend: str, number: int = 0) -> Markup:
    """Confusion matrix with normalised rows; empty with more than `MAX_MATRIX` classes.

    The page's heat colours stay pale (dark mode: deep), so that currentColor is readable on every cell.
    """
    if len(names) > MAX_MATRIX:
        return Markup("")
    cell = 40 if len(names) <= 8 else 30
    margin = max([_width(_fit(n, 110)) + 12 for n in names] + [90.0])
    size = margin + cell * len(names)
    axes = ((28, "predicted \N{RIGHTWARDS ARROW}"), (10, "true \N{DOWNWARDS ARROW}"))
    body = [_text(margin - 10, margin - up, said, "end") for up, said in axes]
    for i, (name, shares) in enumerate(zip(names, row_shares(matrix), strict=True)):
        y, middle = margin + cell * i, margin + cell * i + cell / 2 + 4
        body += [_text(margin - 8, middle, _fit(name, 110), "end", name)]
        body += [_text(middle, margin - 8, _fit(name, 110), "start", name, turn=True)]
        for j, share in enumerate(shares):
            x = margin + cell * j
            said = "no pixels" if share is None else f"{share * 100:.2f} %"
            strength = (share or 0) ** (1 if i == j else 0.5)  # confusions are small, and what one looks for
            fill = f'fill="var(--{"hit" if i == j else "miss"})" fill-opacity="{strength:.3f}" stroke="var(--line)"'
            inside = f"<title>{_clean(f'{name} predicted as {names[j]}: {said}')}</title>"
            body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell}" height="{cell}" {fill}>{inside}</rect>')
            # Cells below half a percent stay empty: a field of zeros would hide what matters.
            if share is None or share >= 0.005:
                body += [_text(x + cell / 2, middle, DASH if share is None else f"{share * 100:.0f}", "middle")]
    style = f"max-width:{min(size * 1.15, 760):.0f}px" + (f";min-width:{size * 0.86:.0f}px" if size > 480 else "")
    about = ["Rows: true classes, columns: predicted classes, cells: percent of the row's pixels"]
    return _svg(f"confusion-{number}", f"Confusion matrix of {backend}", about, size, size, body, style)


def differs(delta: float | None) -> bool:
    """Whether a difference is still there after rounding to hundredths of a point."""
    return delta is not None and round(abs(delta) * 100, 2) > 0


def signed(delta: float) -> str:
    """A difference of fractions in points with its sign; what rounds to nothing has none."""
    return f"{delta * 100:+.2f}".replace("-", MINUS) if differs(delta) else "0.00"


def _svg(
    name: str, title: str, about: Sequence[str], width: float, height: float, body: Iterable[str], style: str = ""
) -> Markup:
    if not about:
        return Markup("")
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="-1 0 {width + 2:.0f} {height + 1:.0f}" style="{style or "max-width:540px"}" font-size="12" '
        f'fill="currentColor"><title id="{name}-title">{_clean(title)}</title>'
        f'<desc id="{name}-desc">{_clean("; ".join(about))}</desc>{"".join(body)}</svg>'
    )


def _clean(text: str) -> str:
    # Control characters have no place in XML, not even escaped.
    return escape("".join(c if c.isprintable() else " " for c in text))


def _width(text: str) -> float:
    return sum(_CHAR * (2 if unicodedata.east_asian_width(c) in "WF" else 1) for c in text)


def _fit(text: str, units: float) -> str:
    if _width(text) <= units:
        return text
    while text and _width(text) + _CHAR > units:
        text = text[:-1]
    return text.rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _text(
    x: float, y: float, text: str, anchor: str = "start", hover: str = "", *, bold: bool = False, turn: bool = False
) -> str:
    more = ' font-weight="600"' if bold else f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    title = f"<title>{_clean(hover)}</title>" if hover and hover != text else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{title}{_clean(text)}</text>'


def _pair(x: float, y: float, label: str, value: str) -> list[str]:
    """A name on the left and its value on the right of one line; the name gives way."""
    room = _WIDTH - x - _width(value) - 12
    return [_text(x, y, _fit(label, room), hover=label), _text(_WIDTH, y, value, "end")]


def _color(number: int) -> str:
    return f"s{number % COLORS}"


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="var(--{color})" stroke-width="{2 if color.startswith("s") else 1}"/>'


def _rect(x: float, y: float, width: float, height: float, number: int, hover: str = "") -> str:
    title = f"<title>{_clean(hover)}</title>" if hover else ""
    size = f'width="{max(width, 0):.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="var(--{_color(number)})">{title}</rect>'


def _mark(x: float, y: float, number: int, r: float, hover: str = "") -> str:
    """Circle, square, diamond or triangle: colour alone would leave some readers out."""
    path = (
        f"m{-r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"m{-0.9 * r:.1f} {-0.9 * r:.1f}h{1.8 * r:.1f}v{1.8 * r:.1f}h{-1.8 * r:.1f}z",
        f"m0 {-1.2 * r:.1f}l{1.2 * r:.1f} {1.2 * r:.1f}l{-1.2 * r:.1f} {1.2 * r:.1f}l{-1.2 * r:.1f} {-1.2 * r:.1f}z",
        f"m0 {-r}l{r} {1.9 * r:.1f}h{-2 * r}z",
    )[number % 4]
    title = f"<title>{_clean(hover)}</title>" if hover else ""
    return f'<path d="M{x:.1f} {y:.1f}{path}" fill="var(--{_color(number)})" stroke="var(--bg)">{title}</path>'


def _scale(far: float, top: float, bottom: float) -> list[str]:
    """Grid, and numbers below it, of a group of bars that start at zero."""
    drawn = []
    for tick in _ticks(0, far):
        x = tick / far * _SPAN
        anchor = "start" if x < 12 else "end" if x > _SPAN - 12 else "middle"
        drawn += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 12, f"{tick:g}", anchor)]
    return drawn


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers from `low` to `high`."""
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    return [round(step * n, 10) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
