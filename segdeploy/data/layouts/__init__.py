"""Public data sets by the form of their folders; nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.data.layouts import ade20k, camvid, cityscapes, pets, voc
from segdeploy.data.layouts.layout import Known, Layout
from segdeploy.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LAYOUTS", "Known", "Layout", "find_layout", "known_layouts"]

LAYOUTS = {each.name: each for each in (pets.LAYOUT, cityscapes.LAYOUT, voc.LAYOUT, ade20k.LAYOUT, camvid.LAYOUT)}


def known_layouts() -> str:
    """One line: which layouts are known, and what each looks like."""
    return "; ".join(f"{each.name} ({each.looks})" for each in LAYOUTS.values())


def find_layout(path: Path, name: str | None = None) -> tuple[Layout, Path] | None:
    """The layout of a folder and its root folder; None where it is none of the known ones.

    Args:
        path: the folder, or one up to two levels above it.
        name: the layout that it must have; None: whichever is unmistakable.

    Raises:
        DataError: no layout is called `name`, the folder has another form, or it holds several data sets.
    """
    if name is None:
        for layout in LAYOUTS.values():
            root = layout.root(path)
            if root is not None and layout.unmistakable(root):
                return layout, root
        return None
    if name not in LAYOUTS:
        raise DataError(f"--layout {name}: expected one of {', '.join(LAYOUTS)}; {known_layouts()}")
    layout = LAYOUTS[name]
    root = layout.root(path)
    if root is None:
        missing = [marker for marker in layout.markers if not (path / marker).exists()]
        raise DataError(f"{path}: expected {layout.title} ({layout.looks}), found no {', no '.join(missing)}")
    return layout, root
