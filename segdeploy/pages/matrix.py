"""A confusion matrix as inline SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from segdeploy.pages import svg
from segdeploy.pages.formats import DASH

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MATRIX = 20  # with more classes the cells of a confusion matrix cannot be read


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
    margin = max([svg.width_of(svg.fit(n, 110)) + 12 for n in names] + [90.0])
    size = margin + cell * len(names)
    axes = ((28, "predicted \N{RIGHTWARDS ARROW}"), (10, "true \N{DOWNWARDS ARROW}"))
    body = [svg.text(margin - 10, margin - up, said, "end") for up, said in axes]
    for i, (name, shares) in enumerate(zip(names, row_shares(matrix), strict=True)):
        y, middle = margin + cell * i, margin + cell * i + cell / 2 + 4
        body += [svg.text(margin - 8, middle, svg.fit(name, 110), "end", name)]
        body += [svg.text(middle, margin - 8, svg.fit(name, 110), "start", name, turn=True)]
        for j, share in enumerate(shares):
            x = margin + cell * j
            said = "no pixels" if share is None else f"{share * 100:.2f} %"
            strength = (share or 0) ** (1 if i == j else 0.5)  # confusions are small, and what one looks for
            fill = f'fill="var(--{"hit" if i == j else "miss"})" fill-opacity="{strength:.3f}" stroke="var(--line)"'
            inside = f"<title>{svg.clean(f'{name} predicted as {names[j]}: {said}')}</title>"
            body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell}" height="{cell}" {fill}>{inside}</rect>')
            # Cells below half a percent stay empty: a field of zeros would hide what matters.
            if share is None or share >= 0.005:
                body += [svg.text(x + cell / 2, middle, DASH if share is None else f"{share * 100:.0f}", "middle")]
    style = f"max-width:{min(size * 1.15, 760):.0f}px" + (f";min-width:{size * 0.86:.0f}px" if size > 480 else "")
    about = ["Rows: true classes, columns: predicted classes, cells: percent of the row's pixels"]
    return svg.drawing(f"confusion-{number}", f"Confusion matrix of {backend}", about, size, size, body, style)
