"""Values over the epochs as inline SVG: a chart with axes, and a small one for a cell of a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from segdeploy.pages import svg

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST = 300
"""Points of a curve; with more of them the eye sees no difference, and the page grows."""
_SMALL = (120, 26)


class Curve(NamedTuple):
    """One curve: (epoch, value) in order, with None where there is no value."""

    label: str
    values: Sequence[tuple[int, float | None]]
    number: int
    dashed: bool = False


def chart(
    name: str, title: str, curves: Sequence[Curve], form: str, *, marked: int | None = None, top: float | None = None
) -> Markup:
    """Curves over the epochs, with a key below that says where each begins and ends; empty without a value.

    Args:
        name: unique on the page.
        title: for those who cannot see it.
        curves: with their numbers of colours.
        form: how values are written, for `format`.
        marked: an epoch that gets a line of its own.
        top: the axis goes from 0 to this; None: from 0 to the largest value.
    """
    known = [(c, found) for c in curves if (found := _known(c.values))]
    if not known:
        return Markup("")
    right, above, bottom = svg.WIDTH - 10, 10, 200
    epochs = [e for _, found in known for e, _ in found]
    first, last = min(epochs), max(epochs)
    high = top or max(v for _, found in known for _, v in found) * 1.05 or 1.0
    left = max(48.0, *(svg.width_of(f"{tick:g}") + 10 for tick in svg.ticks(0, high)))

    def at(epoch: float, value: float) -> tuple[float, float]:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return left + share * (right - left), bottom - min(value / high, 1.0) * (bottom - above)

    body = list[str]()
    for tick in svg.ticks(0, high):
        y = at(first, tick)[1]
        body += [svg.line(left, y, right, y, "grid"), svg.text(left - 6, y + 4, f"{tick:g}", "end")]
    for tick in _whole(first, last):
        x = at(tick, 0)[0]
        body += [svg.line(x, above, x, bottom, "grid"), svg.text(x, bottom + 16, f"{tick}", "middle")]
    body += [svg.line(left, bottom, right, bottom, "axis"), svg.line(left, above, left, bottom, "axis")]
    if marked is not None and first <= marked <= last:
        x = at(marked, 0)[0]
        body += [svg.line(x, above, x, bottom, "axis")]
    y, about = bottom + 50.0, list[str]()
    for c, found in known:
        said = f"{format(found[0][1], form)} \N{RIGHTWARDS ARROW} {format(found[-1][1], form)}"
        about.append(f"{c.label}: {said}")
        places = [at(*point) for point in _thinned(found)]
        if len(places) == 1:
            body.append(svg.mark(*places[0], c.number, 4, about[-1]))
        else:
            body.append(svg.path(places, c.number, dashed=c.dashed, hover=about[-1]))
        body += [svg.path([(0, y - 4), (26, y - 4)], c.number, dashed=c.dashed), *svg.pair(34, y, c.label, said)]
        y += 19
    body.append(svg.text(right, bottom + 31, "epoch", "end"))
    return svg.drawing(name, title, about, svg.WIDTH, y - 8, body)


def spark(name: str, title: str, values: Sequence[tuple[int, float | None]]) -> Markup:
    """A curve from 0 to 1 without axes, as high as a line of text; empty without a value."""
    known = _known(values)
    if not known:
        return Markup("")
    width, height = _SMALL
    first, last = known[0][0], max(known[-1][0], known[0][0] + 1)
    places = [
        (2 + (e - first) / (last - first) * (width - 4), height - 2 - v * (height - 4)) for e, v in _thinned(known, 60)
    ]
    drawn = svg.path(places, 0) if len(places) > 1 else svg.mark(*places[0], 0, 3)
    body = [svg.line(0, height - 1, width, height - 1, "grid"), drawn]
    about = [f"{known[0][1] * 100:.1f} % in epoch {known[0][0]}, {known[-1][1] * 100:.1f} % in epoch {known[-1][0]}"]
    return svg.drawing(name, title, about, width, height, body, f"width:{width}px")


def _known(values: Sequence[tuple[int, float | None]]) -> list[tuple[int, float]]:
    return [(epoch, value) for epoch, value in values if value is not None and math.isfinite(value)]


def _whole(first: int, last: int) -> list[int]:
    """About four epochs for the axis."""
    return sorted({round(t) for t in svg.ticks(first, last)}) if last > first else [first]


def _thinned(values: Sequence[tuple[int, float]], most: int = _MOST) -> list[tuple[int, float]]:
    """At most `most` points, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
