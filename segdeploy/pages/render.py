"""Jinja for the pages: a package's own templates, and the shared style and macros."""

from __future__ import annotations

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from segdeploy.pages import formats

_FILTERS = ("figure", "count", "percent", "points", "share", "plural")


@cache
def templates(package: str) -> Environment:
    """The templates in `package`'s folder `templates`, and behind them those of this package."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("segdeploy.pages", "templates")]),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {name: getattr(formats, name) for name in _FILTERS} | {"md": formats.markdown}
    return found
