"""The drawings of the page: numbers to inline SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from segdeploy.pages import svg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SPAN = svg.WIDTH - 2
_NEAR = ((0, -14), (0, 14), (14, 0), (-14, 0), (12, -12), (-12, -12), (12, 12), (-12, 12))
"""Where the number of a mark may stand, from its middle, best first."""


class Point(NamedTuple):
    """One mark of the scatter: milliseconds per image, mean IoU as a fraction."""

    label: str
    series: int
    x: float
    y: float


class Span(NamedTuple):
    """Percentiles of one row in milliseconds, and the engine's own median."""

    label: str
    series: int
    p50: float
    p90: float
    p99: float
    engine: float | None = None


class Bars(NamedTuple):
    """Images per second of one row, by batch size."""

    label: str
    series: int
    values: Sequence[tuple[int, float]]


def scatter(points: Sequence[Point], where: str, number: int = 0) -> Markup:
    """Time against accuracy, one numbered mark a row; the names stand in a key below, so they cannot cover marks."""
    if not points:
        return Markup("")
    left, right, top, bottom = 48, svg.WIDTH - 10, 26, 226
    far = max([p.x for p in points] + [1e-9]) * 1.08
    low, high = min(p.y for p in points) * 100, max(p.y for p in points) * 100
    # At least one point of mIoU high: thousandths of a point must not look like a difference.
    pad = max((1 - (high - low)) / 2, (high - low) * 0.15)
    low, high = low - pad, high + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / far * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    body = [svg.text(0, 14, "mIoU, %"), svg.text(right, bottom + 33, "median time per image, ms", "end")]
    for tick in svg.ticks(low, high):
        y = at(0, tick)[1]
        body += [svg.line(left, y, right, y, "grid"), svg.text(left - 6, y + 4, f"{tick:g}", "end")]
    for tick in svg.ticks(0, far):
        x = at(tick, 0)[0]
        body += [svg.line(x, top, x, bottom, "grid"), svg.text(x, bottom + 16, f"{tick:g}", "middle")]
    body += [svg.line(left, bottom, right, bottom, "axis"), svg.line(left, top, left, bottom, "axis")]
    ranked = sorted(points, key=lambda p: p.x)
    places = [at(p.x, p.y * 100) for p in ranked]
    y, about = bottom + 58.0, []
    numbers, marks = list(_numbers(places, (left, right, top, bottom))), list[str]()
    for n, (p, place) in enumerate(zip(ranked, places, strict=True)):
        said = f"{p.x:.2f} ms, {p.y * 100:.2f} %"
        about.append(f"{p.label} {said}")
        marks.append(svg.mark(*place, p.series, 6, about[-1]))
        body += [svg.text(16, y, f"{n + 1}", "end"), svg.mark(26, y - 4, p.series, 5), *svg.pair(37, y, p.label, said)]
        y += 19
    body += [*marks, *numbers]
    return svg.drawing(f"scatter-{number}", f"Accuracy against time per image, {where}", about, svg.WIDTH, y - 8, body)


def _numbers(places: Sequence[tuple[float, float]], frame: tuple[float, float, float, float]) -> Iterator[str]:
    """The number of each mark beside it, where it covers no mark and no other number; on a short line if need be."""
    left, right, top, bottom = frame
    taken = [(x, y, 6.0, 6.0) for x, y in places]  # centre, and half of width and height
    for n, (x, y) in enumerate(places):
        wide, best, least = 4.5 * len(f"{n + 1}"), (x, y - 10, False), 1e9
        for reach in (1.0, 1.8, 2.6, 3.4):
            for dx, dy in _NEAR:
                cx, cy = x + dx * reach, y + dy * reach
                if not (left + wide < cx < right - wide and top - 8 < cy < bottom - 6):
                    continue
                covered = sum(max(0.0, wide + w - abs(cx - a)) * max(0.0, 6 + h - abs(cy - b)) for a, b, w, h in taken)
                if covered + reach < least:
                    best, least = (cx, cy, reach > 1), covered + reach
        cx, cy, far = best
        taken.append((cx, cy, wide, 6.0))
        if far:
            yield svg.line(x, y, cx, cy, "axis")
        yield svg.text(cx, cy + 4, f"{n + 1}", "middle", bold=True)


def percentiles(spans: Sequence[Span], where: str, number: int = 0) -> Markup:
    """p50 as a bar from zero, its darker part the engine's own; p90 and p99 as ticks on the line behind it."""
    body, about = list[str](), list[str]()
    far = max([s.p99 for s in spans] + [1e-9])
    body += svg.scale(far, 0, 36 * len(spans))
    y = 0.0
    for s in spans:
        mid, paint, said = y + 23, svg.color(s.series), f"{s.p50:.2f} / {s.p90:.2f} / {s.p99:.2f}"
        to50, to90, to99 = (v / far * _SPAN for v in (s.p50, s.p90, s.p99))
        about.append(f"{s.label}: {said}" + (f", engine {s.engine:.2f}" if s.engine is not None else ""))
        own = to50 if s.engine is None else min(s.engine, s.p50) / far * _SPAN
        body += [*svg.pair(0, y + 13, s.label, said), svg.rect(0, mid - 5, own, 10, s.series, about[-1])]
        body += [svg.rect(own, mid - 5, to50 - own, 10, s.series, about[-1], 0.45)] if own < to50 else []
        body += [svg.line(to50, mid, to99, mid, paint)]
        body += [svg.line(x, mid - half, x, mid + half, paint) for x, half in ((to90, 4), (to99, 7))]
        y += 36
    heading = f"Time of a call, p50 / p90 / p99 in ms, {where}"
    return svg.drawing(f"latency-{number}", heading, about, svg.WIDTH, y + 14, body)


def throughput(rows: Sequence[Bars], where: str, number: int = 0) -> Markup:
    """Images per second as bars from zero, one for each batch size; each row's best is drawn in full colour."""
    body, about = list[str](), list[str]()
    far = max([v for b in rows for _, v in b.values] + [1e-9])
    height = sum(20 + 18 * len(b.values) for b in rows)
    left, right = 62, svg.WIDTH - 62
    for tick in svg.ticks(0, far):
        x = left + tick / far * (right - left)
        body += [svg.line(x, 0, x, height, "grid"), svg.text(x, height + 12, f"{tick:g}", "middle")]
    y = 0.0
    for b in rows:
        best = max(v for _, v in b.values)
        body.append(svg.text(0, y + 14, svg.fit(b.label, svg.WIDTH), hover=b.label))
        y += 20
        for batch, value in b.values:
            about.append(f"{b.label} at batch {batch}: {value:.2f}")
            body += [svg.text(left - 6, y + 10, f"batch {batch}", "end")]
            wide = value / far * (right - left)
            body += [svg.rect(left, y, wide, 12, b.series, about[-1], 1 if value == best else 0.45)]
            body += [svg.text(svg.WIDTH, y + 10, f"{value:.2f}", "end", bold=value == best)]
            y += 18
    return svg.drawing(f"throughput-{number}", f"Images per second, {where}", about, svg.WIDTH, y + 14, body)
